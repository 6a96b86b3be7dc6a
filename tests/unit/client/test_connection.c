#include "unit/client/util.h"

TestSuite(client_connection, .init = make_directory, .fini = remove_directory);

struct watcher {
    struct counter up, down;
    char text[256];
};

static void
on_connection(void *arg, bool connected, const char *text)
{
    struct watcher *w = arg;
    if (!connected)
        snprintf(w->text, sizeof w->text, "%s", text);
    count_up(connected ? &w->up : &w->down);
}

static struct weir_client *
watched(struct watcher *w, int64_t timeout_ms)
{
    struct weir_client *c = NULL;
    *w = (struct watcher){COUNTER, COUNTER, ""};
    OK(weir_client_open(
        &(struct weir_client_options){
            .url = url, .connect_timeout_ms = timeout_ms, .on_connection = on_connection, .arg = w},
        &c, &error));
    return c;
}

/* After open the broker's name is known. */
Test(client_connection, says_hello)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    expect_text(weir_client_broker(c), "fake 1");
    weir_client_close(c);
    fake_free(f);
}

/* Broker and client may live in one process. */
Test(client_connection, works_inside_a_process)
{
    struct fake *f = fake_new("inproc://client-test", 1, 1);
    struct weir_client *c = connect_to(f);
    expect_text(weir_client_broker(c), "fake 1");
    weir_client_close(c);
    fake_free(f);
}

/* Without a broker open fails after its time, and says with whom it tried to talk. */
Test(client_connection, gives_up_without_a_broker)
{
    struct weir_client *c = NULL;
    cr_expect(weir_client_open(&(struct weir_client_options){.url = url, .connect_timeout_ms = 20},
                               &c, &error) == WEIR_UNAVAILABLE);
    cr_expect(c == NULL);
    cr_expect(strstr(error.text, url) != NULL, "%s", error.text);
}

/* A URL that cannot be is an error at once. */
Test(client_connection, refuses_a_bad_url)
{
    struct weir_client *c = NULL;
    cr_expect(weir_client_open(&(struct weir_client_options){.url = "nonsense",
                                                             .connect_timeout_ms = DEADLINE_MS},
                               &c, &error) == WEIR_INVALID);
}

/* The broker's refusal is open's answer, with its text. */
Test(client_connection, passes_a_refusal_on)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = NULL;
    fake_refuse_hello(f, WEIR_DENIED);
    cr_expect(weir_client_open(
                  &(struct weir_client_options){.url = url, .connect_timeout_ms = DEADLINE_MS}, &c,
                  &error) == WEIR_DENIED);
    cr_expect(strstr(error.text, "not you") != NULL, "%s", error.text);
    fake_free(f);
}

/* With a timeout of -1 open returns before there is a broker and connects when one comes. */
Test(client_connection, connects_behind)
{
    struct watcher w;
    struct weir_client *c = watched(&w, -1);
    struct fake *f = fake_new(url, 1, 1);
    wait_for(&w.up, 1);
    weir_client_close(c);
    fake_free(f);
}

/* A lost connection is told, and made again. */
Test(client_connection, comes_back)
{
    struct watcher w;
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = watched(&w, DEADLINE_MS);
    for (unsigned i = 1; i <= 3; i++) {
        wait_for(&w.up, i);
        fake_drop_connections(f);
        wait_for(&w.down, i);
    }
    wait_for(&w.up, 4);
    weir_client_close(c);
    fake_free(f);
}

/* A broker that says nothing any more is left. */
Test(client_connection, leaves_a_silent_broker)
{
    struct watcher w;
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = watched(&w, DEADLINE_MS);
    wait_for(&w.up, 1);
    fake_mute(f, true);
    wait_for(&w.down, 1);
    cr_expect(strstr(w.text, "silent") != NULL, "%s", w.text);
    fake_mute(f, false);
    wait_for(&w.up, 2);
    weir_client_close(c);
    fake_free(f);
}

/* A broker that goes away is left, and asked again. */
Test(client_connection, leaves_a_draining_broker)
{
    struct watcher w;
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = watched(&w, DEADLINE_MS);
    wait_for(&w.up, 1);
    fake_drain(f);
    wait_for(&w.down, 1);
    wait_for(&w.up, 2);
    weir_client_close(c);
    fake_free(f);
}

static void
gather(void *arg, const char *name)
{
    strcat(arg, name);
}

/* A call made while there is no connection waits for it. */
Test(client_connection, calls_wait_for_the_connection)
{
    struct watcher w;
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = watched(&w, DEADLINE_MS);
    char names[64] = "";
    for (int i = 0; i < 5; i++) {
        fake_drop_connections(f);
        OK(weir_list_streams(c, gather, names, &error));
    }
    expect_text(names, "absabsabsabsabs");
    weir_client_close(c);
    fake_free(f);
}

static void *
cut_when_asked(void *arg)
{
    struct fake *f = arg;
    while (fake_calls(f, WEIR__REQUEST__OP_CREATE_STREAM) == 0)
        usleep(1000);
    fake_drop_connections(f);
    return NULL;
}

/* A change that may have happened and whose answer is lost is UNKNOWN, and is not made twice. */
Test(client_connection, a_change_without_an_answer_is_unknown)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    pthread_t thread;
    pthread_create(&thread, NULL, cut_when_asked, f);
    cr_expect(weir_create_stream(c, &(struct weir_stream_options){.name = "new"}, &error) ==
              WEIR_UNKNOWN);
    pthread_join(thread, NULL);
    cr_expect(strstr(error.text, "'new'") != NULL, "%s", error.text);
    char names[64] = "";
    OK(weir_list_streams(c, gather, names, &error));
    cr_expect(eq(u32, fake_calls(f, WEIR__REQUEST__OP_CREATE_STREAM), 1));
    weir_client_close(c);
    fake_free(f);
}

/* A stream of many shards is described whole, by index, with its lineage. */
Test(client_connection, describes_page_by_page)
{
    struct fake *f = fake_new(url, 8, 1);
    struct weir_client *c = connect_to(f);
    struct weir_stream_description *d = NULL;
    fake_split(f, 3);
    fake_append(f, 5, 4, 7, true);
    OK(weir_describe_stream(c, "s", &d, &error));
    cr_assert(eq(u32, d->shard_count, 10));
    cr_expect(eq(u32, d->open_shards, 9));
    for (uint32_t i = 0; i < d->shard_count; i++)
        cr_expect(eq(u32, d->shards[i].index, i));
    expect_text(d->shards[0].hash_low, "0");
    expect_text(d->shards[7].hash_high, "340282366920938463463374607431768211455");
    expect_text(d->shards[9].id, "shardId-000000000009");
    cr_expect(eq(i32, d->shards[8].parent, 3));
    cr_expect(eq(u64, d->shards[5].next, 4));
    cr_expect(d->shards[3].closed_ms != 0);
    weir_stream_description_free(d);
    weir_client_close(c);
    fake_free(f);
}

/* An error says what was tried, with the broker's reason behind it. */
Test(client_connection, errors_tell_their_story)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    struct weir_stream_description *d = NULL;
    cr_expect(weir_describe_stream(c, "x", &d, &error) == WEIR_NOT_FOUND);
    expect_text(error.text, "cannot describe stream 'x': no such stream");
    weir_client_close(c);
    fake_free(f);
}
