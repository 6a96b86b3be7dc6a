#include "record/hash_key.h"
#include "unit/client/util.h"

TestSuite(client_producer, .init = make_directory, .fini = remove_directory);

/* What became of the records, by tag (1, 2, …). */
enum { TAGS = 20000 };
struct fates {
    struct counter acks;
    enum weir_status st[TAGS];
    unsigned times[TAGS];
    uint64_t offset[TAGS];
    uint32_t shard[TAGS];
    uintptr_t last;
    unsigned out_of_order;
    char text[200];
};

static struct fates *
fates_new(void)
{
    struct fates *t = calloc(1, sizeof *t);
    t->acks = COUNTER;
    return t;
}

static void
on_ack(void *arg, const struct weir_ack *ack)
{
    struct fates *t = arg;
    uintptr_t tag = (uintptr_t)ack->tag;
    t->st[tag] = ack->status;
    t->times[tag]++;
    t->offset[tag] = ack->offset;
    t->shard[tag] = ack->shard;
    t->out_of_order += tag < t->last;
    t->last = tag;
    if (ack->text)
        snprintf(t->text, sizeof t->text, "%s", ack->text);
    count_up(&t->acks);
}

static struct weir_producer *
open_producer(struct weir_client *c, struct fates *t, struct weir_producer_options o)
{
    struct weir_producer *p = NULL;
    o.stream = "s";
    if (t) {
        o.on_ack = on_ack;
        o.arg = t;
    }
    OK(weir_producer_open(c, &o, &p, &error));
    return p;
}

static enum weir_status
put_number(struct weir_producer *p, const char *key, uintptr_t number, int64_t timeout_ms)
{
    char data[32];
    int len = snprintf(data, sizeof data, "%lu", (unsigned long)number);
    return weir_put(p, key, strlen(key), data, (size_t)len, (void *)number, timeout_ms);
}

/* Each record is acknowledged once, in order, with the offset where it is. */
Test(client_producer, acknowledges_in_order)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    struct fates *t = fates_new();
    struct weir_producer *p =
        open_producer(c, t, (struct weir_producer_options){.batch_bytes = 300});
    for (uintptr_t i = 1; i <= 1000; i++)
        OK(put_number(p, "k", i, DEADLINE_MS));
    OK(weir_producer_flush(p, DEADLINE_MS, &error));
    for (uintptr_t i = 1; i <= 1000; i++) {
        cr_expect(t->st[i] == WEIR_OK && t->times[i] == 1);
        cr_expect(eq(u64, t->offset[i], i - 1));
    }
    cr_expect(eq(u32, t->out_of_order, 0));
    struct weir_producer_numbers n;
    weir_producer_get_numbers(p, &n);
    cr_expect(eq(u64, n.records_acked, 1000));
    cr_expect(eq(u64, n.bytes_waiting, 0));
    cr_expect(n.batches_sent > 10);
    weir_producer_close(p);
    weir_client_close(c);
    fake_free(f);
    free(t);
}

/* Without linger and without a flush a record goes out by itself. */
Test(client_producer, sends_at_once_without_linger)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    struct fates *t = fates_new();
    struct weir_producer *p = open_producer(c, t, (struct weir_producer_options){.linger_ms = -1});
    for (unsigned i = 1; i <= 20; i++) {
        OK(put_number(p, "k", i, DEADLINE_MS));
        wait_for(&t->acks, i);
    }
    weir_producer_close(p);
    weir_client_close(c);
    fake_free(f);
    free(t);
}

/* With linger a record goes out after it, by itself. */
Test(client_producer, sends_after_the_linger)
{
    struct fake *f = fake_new(url, 4, 1);
    struct weir_client *c = connect_to(f);
    struct fates *t = fates_new();
    struct weir_producer *p = open_producer(c, t, (struct weir_producer_options){.linger_ms = 5});
    for (unsigned i = 1; i <= 40; i++) {
        char key[16];
        snprintf(key, sizeof key, "key-%u", i);
        OK(put_number(p, key, i, DEADLINE_MS));
    }
    wait_for(&t->acks, 40);
    weir_producer_close(p);
    weir_client_close(c);
    fake_free(f);
    free(t);
}

/* Records that never fit are refused by put itself. */
Test(client_producer, refuses_what_never_fits)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    struct weir_producer *p = open_producer(c, NULL, (struct weir_producer_options){});
    char *large = calloc(1, 2 * WEIR_MIB);
    cr_expect(weir_put(p, "k", 1, large, 2 * WEIR_MIB, NULL, 0) == WEIR_TOO_BIG);
    cr_expect(weir_put(p, "", 0, large, 1, NULL, 0) == WEIR_INVALID);
    cr_expect(weir_put(p, "\xff", 1, large, 1, NULL, 0) == WEIR_INVALID);
    cr_expect(weir_put_hashed(p, "k", 1, "12x", large, 1, NULL, 0) == WEIR_INVALID);
    OK(weir_put(p, "k", 1, large, WEIR_MIB - 1, NULL, DEADLINE_MS));
    OK(weir_producer_flush(p, DEADLINE_MS, &error));
    free(large);
    weir_producer_close(p);
    weir_client_close(c);
    fake_free(f);
}

static uint64_t
shard_of(struct fates *t, uintptr_t tag)
{
    return t->shard[tag];
}

/* Keys go to the shard that has their MD5, explicit hash keys to the one that has them. */
Test(client_producer, routes_by_hash_key)
{
    struct fake *f = fake_new(url, 5, 1);
    struct weir_client *c = connect_to(f);
    struct fates *t = fates_new();
    struct weir_producer *p = open_producer(c, t, (struct weir_producer_options){});
    char key[32], hash[WEIR_U128_DIGITS_MAX + 1];
    for (uintptr_t i = 1; i <= 200; i++) {
        snprintf(key, sizeof key, "key-%lu", (unsigned long)i);
        OK(put_number(p, key, i, DEADLINE_MS));
    }
    for (uint32_t i = 0; i < 5; i++) {
        weir_u128_format(weir_hash_range_of(i, 5).high, hash);
        OK(weir_put_hashed(p, "k", 1, hash, "x", 1, (void *)(uintptr_t)(300 + i), DEADLINE_MS));
    }
    OK(weir_producer_flush(p, DEADLINE_MS, &error));
    for (uintptr_t i = 1; i <= 200; i++) {
        snprintf(key, sizeof key, "key-%lu", (unsigned long)i);
        struct weir_hash_range r = weir_hash_range_of((uint32_t)shard_of(t, i), 5);
        cr_expect(weir_hash_range_has(r, weir_hash_key(weir_bytes_of(key))));
    }
    for (uint32_t i = 0; i < 5; i++)
        cr_expect(eq(u64, shard_of(t, 300 + i), i));
    weir_producer_close(p);
    weir_client_close(c);
    fake_free(f);
    free(t);
}

/* Memory is bounded: put says AGAIN while the broker takes nothing, and works again when it does.
 */
Test(client_producer, memory_is_bounded)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    struct weir_producer *p = open_producer(
        c, NULL, (struct weir_producer_options){.memory_bytes = 100000, .batch_bytes = 10000});
    char data[1000] = "";
    fake_refuse_batches(f, WEIR_NO_SPACE);
    unsigned taken = 0;
    while (weir_put(p, "k", 1, data, sizeof data, NULL, 10) == WEIR_OK)
        taken++;
    cr_expect(taken > 50 && taken < 110, "%u", taken);
    fake_refuse_batches(f, WEIR_OK);
    for (int i = 0; i < 500; i++)
        OK(weir_put(p, "k", 1, data, sizeof data, NULL, DEADLINE_MS));
    OK(weir_producer_flush(p, DEADLINE_MS, &error));
    cr_expect(eq(u64, fake_next(f, 0), 500 + taken));
    weir_producer_close(p);
    weir_client_close(c);
    fake_free(f);
}

/* What the broker refuses for too long fails with TIMEOUT and is not stored; flush tells it once.
 */
Test(client_producer, gives_up_after_its_time)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    struct fates *t = fates_new();
    struct weir_producer *p =
        open_producer(c, t, (struct weir_producer_options){.retry_ms = 50, .batch_bytes = 100});
    fake_refuse_batches(f, WEIR_THROTTLED);
    for (uintptr_t i = 1; i <= 100; i++)
        OK(put_number(p, "k", i, DEADLINE_MS));
    cr_expect(weir_producer_flush(p, DEADLINE_MS, &error) == WEIR_TIMEOUT);
    cr_expect(strstr(error.text, weir_status_text(WEIR_THROTTLED)) != NULL, "%s", error.text);
    for (uintptr_t i = 1; i <= 100; i++)
        cr_expect(t->st[i] == WEIR_TIMEOUT && t->times[i] == 1);
    fake_refuse_batches(f, WEIR_OK);
    OK(put_number(p, "k", 101, DEADLINE_MS));
    OK(weir_producer_flush(p, DEADLINE_MS, &error));
    cr_expect(eq(u64, fake_next(f, 0), 1));
    weir_producer_close(p);
    weir_client_close(c);
    fake_free(f);
    free(t);
}

/* A batch that is refused for good fails with the reason; what comes later is stored. */
Test(client_producer, a_definite_refusal_is_reported)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    struct fates *t = fates_new();
    struct weir_producer *p = open_producer(c, t, (struct weir_producer_options){});
    enum weir_status refusals[] = {WEIR_INVALID, WEIR_DENIED, WEIR_TOO_BIG, WEIR_DAMAGED};
    uintptr_t tag = 1;
    for (size_t i = 0; i < 4; i++) {
        OK(put_number(p, "k", tag, DEADLINE_MS));
        OK(weir_producer_flush(p, DEADLINE_MS, &error));
        cr_expect(t->st[tag++] == WEIR_OK);
        fake_refuse_batches(f, refusals[i]);
        OK(put_number(p, "k", tag, DEADLINE_MS));
        cr_expect(weir_producer_flush(p, DEADLINE_MS, &error) == refusals[i]);
        cr_expect(t->st[tag++] == refusals[i]);
        fake_refuse_batches(f, WEIR_OK);
    }
    cr_expect(eq(u64, fake_next(f, 0), 4));
    weir_producer_close(p);
    weir_client_close(c);
    fake_free(f);
    free(t);
}

/* When the stream is gone all fails, and so does the next put. */
Test(client_producer, ends_with_its_stream)
{
    struct fake *f = fake_new(url, 2, 1);
    struct weir_client *c = connect_to(f);
    struct fates *t = fates_new();
    struct weir_producer *p = open_producer(c, t, (struct weir_producer_options){});
    OK(put_number(p, "k", 1, DEADLINE_MS));
    OK(weir_producer_flush(p, DEADLINE_MS, &error));
    fake_delete(f);
    OK(put_number(p, "k", 2, DEADLINE_MS));
    cr_expect(weir_producer_flush(p, DEADLINE_MS, &error) == WEIR_NOT_FOUND);
    cr_expect(t->st[2] == WEIR_NOT_FOUND);
    cr_expect(put_number(p, "k", 3, DEADLINE_MS) == WEIR_NOT_FOUND);
    weir_producer_close(p);
    weir_client_close(c);
    fake_free(f);
    free(t);
}

/* Close sends nothing more: what waits is CANCELLED. */
Test(client_producer, close_cancels)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    struct fates *t = fates_new();
    struct weir_producer *p =
        open_producer(c, t, (struct weir_producer_options){.linger_ms = 60000});
    for (uintptr_t i = 1; i <= 10; i++)
        OK(put_number(p, "k", i, DEADLINE_MS));
    weir_producer_close(p);
    for (uintptr_t i = 1; i <= 10; i++)
        cr_expect(t->st[i] == WEIR_CANCELLED);
    weir_client_close(c);
    fake_free(f);
    free(t);
}

/* Records put while there is no broker are sent when it is back. */
Test(client_producer, waits_for_the_broker)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    struct weir_producer *p = open_producer(c, NULL, (struct weir_producer_options){});
    fake_stop_listening(f);
    for (uintptr_t i = 1; i <= 100; i++)
        OK(put_number(p, "k", i, DEADLINE_MS));
    cr_expect(weir_producer_flush(p, 20, &error) == WEIR_TIMEOUT);
    fake_listen_again(f);
    OK(weir_producer_flush(p, DEADLINE_MS, &error));
    cr_expect(eq(u64, fake_next(f, 0), 100));
    weir_producer_close(p);
    weir_client_close(c);
    fake_free(f);
}

struct batch_counter {
    uint64_t next;
    unsigned wrong;
};

static void
on_batch_ack(void *arg, enum weir_status st, uint32_t shard, uint64_t offset, uint32_t count)
{
    struct batch_counter *b = arg;
    b->wrong += st != WEIR_OK || shard != 0 || offset != b->next;
    b->next += count;
}

/* Acks per batch name the offsets of whole batches. */
Test(client_producer, acknowledges_per_batch)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    struct batch_counter b = {};
    struct weir_producer *p =
        open_producer(c, NULL,
                      (struct weir_producer_options){
                          .batch_bytes = 500, .on_batch_ack = on_batch_ack, .arg = &b});
    for (uintptr_t i = 1; i <= 1000; i++)
        OK(put_number(p, "k", i, DEADLINE_MS));
    OK(weir_producer_flush(p, DEADLINE_MS, &error));
    cr_expect(eq(u64, b.next, 1000));
    cr_expect(eq(u32, b.wrong, 0));
    weir_producer_close(p);
    weir_client_close(c);
    fake_free(f);
}

/* ---- the model: whatever the broker does ---- */

enum { KEYS = 40, RECORDS = 6000 };

struct found {
    unsigned times[RECORDS + 1];
    uintptr_t last[KEYS];
    unsigned out_of_order;
};

static void
find(void *arg, uint64_t offset, const struct weir_record *record)
{
    (void)offset;
    struct found *w = arg;
    char text[32];
    memcpy(text, record->data.data, record->data.len);
    text[record->data.len] = 0;
    uintptr_t number = strtoul(text, NULL, 10);
    memcpy(text, record->key.data, record->key.len);
    text[record->key.len] = 0;
    unsigned key = (unsigned)strtoul(text + 4, NULL, 10);
    w->times[number]++;
    w->out_of_order += number < w->last[key];
    w->last[key] = number;
}

/* Every record acknowledged as OK is stored exactly once, one with a definite failure not at all,
 * one of unknown fate at most once; and the records of a key are stored in the order in which they
 * were put, through splits and merges. */
static void
run_model(uint64_t seed, uint32_t shards, const struct fake_faults *faults,
          struct weir_producer_options options)
{
    make_directory();
    struct fake *f = fake_new(url, shards, seed);
    struct weir_client *c = connect_to(f);
    struct fates *t = fates_new();
    struct weir_producer *p = open_producer(c, t, options);
    struct weir_random random;
    weir_random_init(&random, seed);
    fake_set_faults(f, faults);
    for (uintptr_t i = 1; i <= RECORDS; i++) {
        char key[16];
        snprintf(key, sizeof key, "key-%lu", (unsigned long)weir_random_below(&random, KEYS));
        OK(put_number(p, key, i, DEADLINE_MS));
        if (weir_random_below(&random, 500) == 0)
            (void)weir_producer_flush(p, DEADLINE_MS, &error);
        if (i == RECORDS / 10 * 9)
            fake_set_faults(f, &(struct fake_faults){});
    }
    (void)weir_producer_flush(p, DEADLINE_MS, &error);
    cr_expect(fake_hits(f) > 10, "seed %lu: %u faults", seed, fake_hits(f));
    struct weir_producer_numbers n;
    weir_producer_get_numbers(p, &n);
    cr_expect(eq(u64, n.records_acked + n.records_failed, RECORDS), "seed %lu", seed);
    cr_expect(eq(u64, n.bytes_waiting, 0), "seed %lu", seed);
    weir_producer_close(p);

    struct found *w = calloc(1, sizeof *w);
    for (uint32_t i = 0; i < fake_shard_count(f); i++)
        fake_each(f, i, find, w);
    unsigned unknown = 0;
    for (uintptr_t i = 1; i <= RECORDS; i++) {
        cr_assert(t->times[i] == 1, "seed %lu: record %lu has %u fates", seed, i, t->times[i]);
        unsigned least = t->st[i] == WEIR_OK;
        unsigned most = t->st[i] == WEIR_OK || t->st[i] == WEIR_UNKNOWN;
        unknown += t->st[i] == WEIR_UNKNOWN;
        cr_assert(w->times[i] >= least && w->times[i] <= most,
                  "seed %lu: record %lu is stored %u times, its fate is %s", seed, i, w->times[i],
                  weir_status_name(t->st[i]));
    }
    cr_expect(eq(u32, w->out_of_order, 0), "seed %lu", seed);
    cr_expect(faults->forget || unknown == 0, "seed %lu: %u unknown", seed, unknown);
    free(w);
    weir_client_close(c);
    fake_free(f);
    free(t);
    remove_directory();
}

static uint64_t
first_seed(void)
{
    const char *seed = getenv("WEIR_SEED");
    return seed ? strtoull(seed, NULL, 10) : 1;
}

static uint64_t
seeds(void)
{
    const char *count = getenv("WEIR_SEEDS");
    return count ? strtoull(count, NULL, 10) : getenv("WEIR_SEED") ? 1 : 2;
}

#define EACH_SEED(seed) for (uint64_t seed = first_seed(), end = seed + seeds(); seed < end; seed++)

Test(client_producer_model, lost_connections, .timeout = 300)
{
    EACH_SEED(seed)
    run_model(seed, 3, &(struct fake_faults){.drop_before = 15, .drop_after = 15, .late = 100},
              (struct weir_producer_options){.batch_bytes = 300});
}

Test(client_producer_model, refusals, .timeout = 300)
{
    EACH_SEED(seed)
    run_model(seed, 3, &(struct fake_faults){.refuse = 40, .unknown = 20, .late = 200},
              (struct weir_producer_options){.batch_bytes = 300});
}

Test(client_producer_model, resharding, .timeout = 300)
{
    EACH_SEED(seed)
    run_model(seed, 1, &(struct fake_faults){.reshard = 50, .late = 200},
              (struct weir_producer_options){.batch_bytes = 300});
}

Test(client_producer_model, everything, .timeout = 300)
{
    EACH_SEED(seed)
    run_model(seed, 2,
              &(struct fake_faults){.drop_before = 8,
                                    .drop_after = 8,
                                    .refuse = 20,
                                    .unknown = 10,
                                    .reshard = 15,
                                    .late = 100},
              (struct weir_producer_options){.batch_bytes = 300, .memory_bytes = 30000});
}

/* Also where the broker forgets producers and time runs out. */
Test(client_producer_model, forgotten_and_late, .timeout = 300)
{
    EACH_SEED(seed)
    run_model(
        seed, 2,
        &(struct fake_faults){.drop_before = 15,
                              .drop_after = 15,
                              .refuse = 100,
                              .unknown = 20,
                              .reshard = 10,
                              .forget = 300},
        (struct weir_producer_options){.batch_bytes = 300, .retry_ms = 100, .memory_bytes = 30000});
}
