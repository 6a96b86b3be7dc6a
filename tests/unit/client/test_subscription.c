#include "unit/client/util.h"
#include <poll.h>

TestSuite(client_subscription, .init = make_directory, .fini = remove_directory);

static struct weir_subscription *
subscribe(struct weir_client *c, struct weir_subscribe_options o)
{
    struct weir_subscription *s = NULL;
    o.stream = "s";
    OK(weir_subscribe(c, &o, &s, &error));
    return s;
}

/* The next event of a kind that is not PROGRESS or CONNECTION. */
static struct weir_event *
next_event(struct weir_subscription *s)
{
    for (;;) {
        struct weir_event *e = NULL;
        OK(weir_poll(s, DEADLINE_MS, &e, &error));
        if (e->kind != WEIR_EVENT_PROGRESS && e->kind != WEIR_EVENT_CONNECTION)
            return e;
        weir_event_free(e);
    }
}

/* The records of an event follow each other and are what fake_append wrote. */
static void
check_records(struct weir_event *e)
{
    struct weir_event_record r;
    uint64_t offset = e->first;
    char text[64];
    while (weir_event_next(e, &r)) {
        cr_assert(r.offset == offset && r.shard == e->shard);
        snprintf(text, sizeof text, "%u:%lu %48s", r.shard, (unsigned long)r.offset, "");
        cr_assert(r.data_len == strlen(text) && memcmp(r.data, text, r.data_len) == 0);
        cr_assert(r.key_len == 1 && r.key[0] == 'k');
        offset++;
    }
    cr_assert(eq(u64, offset, e->limit));
    cr_assert(eq(u64, e->records, e->limit - e->first));
}

static void
expect_records(struct weir_subscription *s, uint32_t shard, uint64_t first, uint64_t limit)
{
    while (first < limit) {
        struct weir_event *e = next_event(s);
        cr_assert(e->kind == WEIR_EVENT_RECORDS, "event %d, wanted records of %u from %lu", e->kind,
                  shard, (unsigned long)first);
        cr_assert(e->shard == shard && e->first == first && e->limit <= limit,
                  "records %u:[%lu, %lu), wanted %u:[%lu, %lu)", e->shard, (unsigned long)e->first,
                  (unsigned long)e->limit, shard, (unsigned long)first, (unsigned long)limit);
        check_records(e);
        first = e->limit;
        weir_event_free(e);
    }
}

static void
expect_event(struct weir_subscription *s, enum weir_event_kind kind, uint32_t shard, uint64_t first,
             uint64_t limit)
{
    struct weir_event *e = next_event(s);
    cr_assert(e->kind == kind && e->shard == shard && e->first == first && e->limit == limit,
              "event %d of %u [%lu, %lu), wanted %d of %u [%lu, %lu)", e->kind, e->shard,
              (unsigned long)e->first, (unsigned long)e->limit, kind, shard, (unsigned long)first,
              (unsigned long)limit);
    weir_event_free(e);
}

static void
expect_over(struct weir_subscription *s, enum weir_status st)
{
    struct weir_event *e = NULL;
    do {
        enum weir_status got = weir_poll(s, DEADLINE_MS, &e, &error);
        if (got) {
            cr_assert(got == st, "%s: %s", weir_status_name(got), error.text);
            return;
        }
        cr_assert(e->kind == WEIR_EVENT_PROGRESS || e->kind == WEIR_EVENT_CONNECTION, "%d",
                  e->kind);
        weir_event_free(e);
    } while (true);
}

/* From the oldest to what comes live, compressed or not, each record once. */
Test(client_subscription, reads_all_and_goes_on)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    for (int i = 0; i < 20; i++)
        fake_append(f, 0, 10, 1, i % 2);
    struct weir_subscription *s =
        subscribe(c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST}});
    expect_records(s, 0, 0, 200);
    for (unsigned i = 0; i < 50; i++) {
        fake_append(f, 0, 3, 1, i % 2);
        expect_records(s, 0, 200 + 3 * i, 203 + 3 * i);
    }
    uint64_t position;
    OK(weir_subscription_position(s, 0, &position));
    cr_expect(eq(u64, position, 350));
    weir_subscription_close(s);
    weir_client_close(c);
    fake_free(f);
}

/* LATEST brings only what comes later. */
Test(client_subscription, from_latest)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    fake_append(f, 0, 10, 1, false);
    struct weir_subscription *s = subscribe(c, (struct weir_subscribe_options){});
    uint64_t position;
    while (weir_subscription_position(s, 0, &position))
        usleep(1000);
    fake_append(f, 0, 5, 1, false);
    expect_records(s, 0, 10, 15);
    weir_subscription_close(s);
    weir_client_close(c);
    fake_free(f);
}

/* An offset in the middle of a batch is where it begins. */
Test(client_subscription, from_an_offset)
{
    struct fake *f = fake_new(url, 2, 1);
    struct weir_client *c = connect_to(f);
    fake_append(f, 1, 10, 1, true);
    fake_append(f, 1, 10, 1, false);
    struct weir_subscription *s = subscribe(
        c, (struct weir_subscribe_options){
               .one_shard = true, .shard = 1, .from = {.kind = WEIR_FROM_OFFSET, .offset = 7}});
    expect_records(s, 1, 7, 20);
    weir_subscription_close(s);
    weir_client_close(c);
    fake_free(f);
}

/* Up to what was there at the start, then END; empty shards do not hold it up. */
Test(client_subscription, until_the_tail)
{
    struct fake *f = fake_new(url, 3, 1);
    struct weir_client *c = connect_to(f);
    fake_append(f, 1, 10, 1, true);
    fake_append(f, 1, 10, 1, true);
    struct weir_subscription *s = subscribe(
        c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST}, .until_tail = true});
    fake_append(f, 1, 10, 1, true);
    fake_append(f, 0, 10, 1, true);
    expect_records(s, 1, 0, 20);
    expect_over(s, WEIR_END);
    weir_subscription_close(s);

    s = subscribe(c, (struct weir_subscribe_options){.one_shard = true,
                                                     .shard = 2,
                                                     .from = {.kind = WEIR_FROM_OLDEST},
                                                     .until_tail = true});
    expect_over(s, WEIR_END);
    weir_subscription_close(s);
    weir_client_close(c);
    fake_free(f);
}

/* Children come after their parents ended, a merged one after both, also from the past. */
Test(client_subscription, parents_before_children)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    fake_append(f, 0, 10, 1, true);
    fake_split(f, 0); /* 1, 2 */
    fake_append(f, 1, 10, 1, true);
    fake_append(f, 2, 10, 1, true);
    fake_merge(f, 1, 2); /* 3 */
    fake_append(f, 3, 10, 1, true);
    struct weir_subscription *s =
        subscribe(c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST}});
    unsigned ended[4] = {}, records[4] = {};
    while (records[3] < 10) {
        struct weir_event *e = next_event(s);
        if (e->kind == WEIR_EVENT_RECORDS) {
            if (e->shard == 1 || e->shard == 2)
                cr_assert(ended[0]);
            if (e->shard == 3)
                cr_assert(ended[1] && ended[2]);
            records[e->shard] += e->records;
        } else {
            cr_assert(e->kind == WEIR_EVENT_SHARD_END);
            cr_assert(eq(u32, records[e->shard], 10));
            ended[e->shard]++;
        }
        weir_event_free(e);
    }
    /* And live. */
    fake_split(f, 3);
    expect_event(s, WEIR_EVENT_SHARD_END, 3, 10, 10);
    fake_append(f, 5, 4, 1, true);
    expect_records(s, 5, 0, 4);
    char sequence[57];
    OK(weir_sequence_of(s, 5, 3, 1000, sequence));
    cr_expect(eq(sz, strlen(sequence), 56));
    weir_subscription_close(s);
    weir_client_close(c);
    fake_free(f);
}

/* A shard that never had a record does not let its children go before its parents ended. */
Test(client_subscription, empty_shards_keep_lineage)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    for (int i = 0; i < 50; i++)
        fake_append(f, 0, 10, 1, true);
    fake_split(f, 0); /* 1, 2 */
    fake_split(f, 1); /* 3, 4 */
    fake_append(f, 3, 10, 1, true);
    for (int until_tail = 0; until_tail < 2; until_tail++) {
        struct weir_subscription *s =
            subscribe(c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST},
                                                         .until_tail = until_tail});
        expect_records(s, 0, 0, 500);
        expect_event(s, WEIR_EVENT_SHARD_END, 0, 500, 500);
        expect_records(s, 3, 0, 10);
        weir_subscription_close(s);
    }
    weir_client_close(c);
    fake_free(f);
}

/* One shard alone ends with its end. */
Test(client_subscription, one_shard_ends)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    fake_append(f, 0, 10, 1, true);
    fake_split(f, 0);
    struct weir_subscription *s = subscribe(
        c, (struct weir_subscribe_options){.one_shard = true, .from = {.kind = WEIR_FROM_OLDEST}});
    expect_records(s, 0, 0, 10);
    expect_event(s, WEIR_EVENT_SHARD_END, 0, 10, 10);
    expect_over(s, WEIR_END);
    weir_subscription_close(s);
    weir_client_close(c);
    fake_free(f);
}

/* What was trimmed is told with its range, and reading goes on behind it. */
Test(client_subscription, tells_of_a_gap)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    for (int i = 0; i < 3; i++)
        fake_append(f, 0, 10, 1, true);
    fake_trim(f, 0, 20);
    struct weir_subscribe_options o = {.one_shard = true,
                                       .from = {.kind = WEIR_FROM_OFFSET, .offset = 3}};
    struct weir_subscription *s = subscribe(c, o);
    expect_event(s, WEIR_EVENT_GAP, 0, 3, 20);
    expect_records(s, 0, 20, 30);
    weir_subscription_close(s);

    o.fail_if_trimmed = true;
    s = subscribe(c, o);
    expect_over(s, WEIR_TRIMMED);
    weir_subscription_close(s);
    weir_client_close(c);
    fake_free(f);
}

/* A closed shard that is trimmed away while it is read counts as ended. */
Test(client_subscription, a_vanished_parent_counts_as_ended)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    for (int i = 0; i < 100; i++)
        fake_append(f, 0, 100, 1, false);
    fake_split(f, 0);
    fake_append(f, 1, 10, 1, true);
    struct weir_subscription *s =
        subscribe(c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST},
                                                     .credit_bytes = 20000});
    struct weir_event *e = next_event(s);
    fake_expire(f, 0);
    uint64_t from_child = 0;
    while (from_child < 10) {
        weir_event_free(e);
        e = next_event(s);
        if (e->kind == WEIR_EVENT_RECORDS && e->shard == 1)
            from_child += e->records;
    }
    weir_event_free(e);
    weir_subscription_close(s);
    weir_client_close(c);
    fake_free(f);
}

/* A consumer that does not poll holds no more than its credit, and goes on when it polls. */
Test(client_subscription, credit_bounds_the_queue)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    for (int i = 0; i < 200; i++)
        fake_append(f, 0, 100, 1, false);
    struct weir_subscription *s =
        subscribe(c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST},
                                                     .credit_bytes = 100000});
    struct weir_event *e = next_event(s);
    int64_t credit = fake_credit(f, 0);
    cr_expect(credit <= 0 && credit > -100000, "%ld", (long)credit);
    weir_event_free(e);
    uint64_t next = 0;
    OK(weir_subscription_position(s, 0, &next));
    expect_records(s, 0, next, 20000);
    weir_subscription_close(s);
    weir_client_close(c);
    fake_free(f);
}

/* The descriptor is readable exactly while something waits. */
Test(client_subscription, has_a_descriptor)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    struct weir_subscription *s =
        subscribe(c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST},
                                                     .heartbeat_ms = 60000});
    struct pollfd p = {.fd = weir_subscription_fd(s), .events = POLLIN};
    struct weir_event *e = NULL;
    cr_expect(eq(int, poll(&p, 1, 0), 0));
    for (int i = 0; i < 3; i++) {
        fake_append(f, 0, 5, 1, false);
        cr_expect(eq(int, poll(&p, 1, DEADLINE_MS), 1));
        OK(weir_poll(s, 0, &e, &error));
        weir_event_free(e);
        cr_expect(weir_poll(s, 0, &e, &error) == WEIR_TIMEOUT);
        cr_expect(eq(int, poll(&p, 1, 0), 0));
    }
    fake_delete(f);
    cr_expect(eq(int, poll(&p, 1, DEADLINE_MS), 1));
    expect_over(s, WEIR_NOT_FOUND);
    weir_subscription_close(s);
    weir_client_close(c);
    fake_free(f);
}

/* Heartbeats become PROGRESS, at most one per shard waits, and it tells the latest. */
Test(client_subscription, heartbeats_are_progress)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    fake_append(f, 0, 5, 1, false);
    struct weir_subscription *s =
        subscribe(c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST}});
    expect_records(s, 0, 0, 5);
    for (int i = 0; i < 5; i++)
        fake_heartbeat(f);
    fake_append(f, 0, 5, 1, false);
    fake_heartbeat(f);
    expect_records(s, 0, 5, 10);
    unsigned count = 0;
    struct weir_event *e = NULL;
    do {
        OK(weir_poll(s, DEADLINE_MS, &e, &error));
        cr_assert(e->kind == WEIR_EVENT_PROGRESS);
        count++;
        uint64_t first = e->first, tail = e->tail;
        weir_event_free(e);
        cr_expect(tail == 10 && first == 10);
    } while (weir_poll(s, 0, &e, &error) == WEIR_OK);
    cr_expect(count == 1);
    weir_subscription_close(s);
    weir_client_close(c);
    fake_free(f);
}

/* A deleted stream ends the subscription after what was queued. */
Test(client_subscription, ends_with_its_stream)
{
    struct fake *f = fake_new(url, 2, 1);
    struct weir_client *c = connect_to(f);
    fake_append(f, 0, 10, 1, true);
    struct weir_subscription *s =
        subscribe(c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST}});
    expect_records(s, 0, 0, 10);
    fake_delete(f);
    expect_over(s, WEIR_NOT_FOUND);
    weir_subscription_close(s);
    weir_client_close(c);
    fake_free(f);
}

/* Positions in data that is no longer there are not taken for positions in other data. */
Test(client_subscription, ends_with_its_data)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    fake_append(f, 0, 10, 1, true);
    struct weir_subscription *s =
        subscribe(c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST}});
    expect_records(s, 0, 0, 10);
    fake_new_data(f);
    fake_drop_connections(f);
    expect_over(s, WEIR_DAMAGED);
    weir_subscription_close(s);
    weir_client_close(c);
    fake_free(f);
}

/* An event may outlive its subscription's close. */
Test(client_subscription, events_outlive_it)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    fake_append(f, 0, 10, 1, true);
    fake_append(f, 0, 10, 1, true);
    struct weir_subscription *s =
        subscribe(c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST}});
    struct weir_event *e = next_event(s);
    weir_subscription_close(s);
    weir_client_close(c);
    check_records(e);
    weir_event_free(e);
    fake_free(f);
}

/* ---- checkpoints ---- */

static const struct weir_subscribe_options FROM_CHECKPOINT = {
    .consumer = "app",
    .take_checkpoint = true,
    .from = {.kind = WEIR_FROM_CHECKPOINT, .otherwise = WEIR_FROM_OLDEST},
};

/* A consumer goes on where its checkpoint is. */
Test(client_subscription, resumes_from_its_checkpoint)
{
    struct fake *f = fake_new(url, 2, 1);
    struct weir_client *c = connect_to(f);
    fake_append(f, 0, 10, 1, true);
    struct weir_subscription *s = subscribe(c, FROM_CHECKPOINT);
    expect_records(s, 0, 0, 10);
    OK(weir_checkpoint(s, 0, 4, &error));
    weir_subscription_close(s);
    s = subscribe(c, FROM_CHECKPOINT);
    expect_records(s, 0, 4, 10);
    weir_subscription_close(s);
    weir_client_close(c);
    fake_free(f);
}

/* Checkpoints without waiting: the newest arrives at last, and close waits for it. */
Test(client_subscription, checkpoints_later)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    fake_append(f, 0, 1000, 1, true);
    struct weir_subscription *s = subscribe(c, FROM_CHECKPOINT);
    expect_records(s, 0, 0, 1000);
    for (uint64_t i = 1; i <= 1000; i++)
        weir_checkpoint_later(s, 0, i);
    weir_subscription_close(s);
    uint64_t offset, epoch;
    bool shard_end;
    cr_assert(fake_checkpoint(f, "app", 0, &offset, &epoch, &shard_end));
    cr_expect(eq(u64, offset, 1000));
    cr_expect(shard_end == false);
    weir_client_close(c);
    fake_free(f);
}

/* Whoever takes the checkpoints later is the owner: the one before is refused and told. */
Test(client_subscription, an_older_owner_is_fenced)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    fake_append(f, 0, 10, 1, true);
    struct weir_subscription *old = subscribe(c, FROM_CHECKPOINT),
                             *later = subscribe(c, FROM_CHECKPOINT);
    expect_records(old, 0, 0, 10);
    expect_records(later, 0, 0, 10);
    OK(weir_checkpoint(later, 0, 10, &error));
    cr_expect(weir_checkpoint(old, 0, 5, &error) == WEIR_FENCED);
    expect_event(old, WEIR_EVENT_FENCED, 0, 10, 10);
    expect_over(old, WEIR_FENCED);
    weir_subscription_close(old);
    weir_subscription_close(later);

    old = subscribe(c, FROM_CHECKPOINT);
    fake_append(f, 0, 10, 1, true);
    expect_records(old, 0, 10, 20);
    later = subscribe(c, FROM_CHECKPOINT);
    expect_records(later, 0, 10, 20);
    weir_checkpoint_later(old, 0, 20);
    expect_event(old, WEIR_EVENT_FENCED, 0, 20, 20);
    weir_subscription_close(old);
    weir_subscription_close(later);
    weir_client_close(c);
    fake_free(f);
}

/* A shard whose end was checkpointed is not read again; its children are, from their start. */
Test(client_subscription, children_follow_an_ended_checkpoint)
{
    struct fake *f = fake_new(url, 2, 1);
    struct weir_client *c = connect_to(f);
    fake_append(f, 0, 10, 1, true);
    fake_split(f, 0); /* 2, 3 */
    struct weir_subscription *s = subscribe(c, FROM_CHECKPOINT);
    expect_records(s, 0, 0, 10);
    expect_event(s, WEIR_EVENT_SHARD_END, 0, 10, 10);
    OK(weir_checkpoint(s, 0, 10, &error));
    weir_subscription_close(s);
    uint64_t offset, epoch;
    bool shard_end = false;
    cr_assert(fake_checkpoint(f, "app", 0, &offset, &epoch, &shard_end));
    cr_expect(shard_end);

    fake_append(f, 2, 6, 1, true);
    struct weir_subscribe_options o = FROM_CHECKPOINT;
    o.from.otherwise = WEIR_FROM_LATEST;
    s = subscribe(c, o);
    expect_records(s, 2, 0, 6);
    weir_subscription_close(s);
    weir_client_close(c);
    fake_free(f);
}

/* Without a checkpoint anywhere `otherwise` decides. */
Test(client_subscription, otherwise_where_there_is_none)
{
    struct fake *f = fake_new(url, 1, 1);
    struct weir_client *c = connect_to(f);
    fake_append(f, 0, 10, 1, true);
    fake_split(f, 0);
    struct weir_subscribe_options o = FROM_CHECKPOINT;
    o.from.otherwise = WEIR_FROM_LATEST;
    struct weir_subscription *s = subscribe(c, o);
    uint64_t position;
    while (weir_subscription_position(s, 2, &position))
        usleep(1000);
    fake_append(f, 2, 6, 1, true);
    expect_records(s, 2, 0, 6);
    weir_subscription_close(s);
    weir_client_close(c);
    fake_free(f);
}

/* ---- the model ---- */

/* Whatever happens to connections and frames: each record of each shard once, in order, parents
 * before children. */
static void
run_model(uint64_t seed, const struct fake_faults *faults)
{
    enum { BATCHES = 400, SHARDS = 40 };
    make_directory();
    struct weir_random random;
    weir_random_init(&random, seed);
    struct fake *f = fake_new(url, 2, seed);
    struct weir_client *c = connect_to(f);
    fake_set_faults(f, faults);
    struct weir_subscription *s =
        subscribe(c, (struct weir_subscribe_options){.from = {.kind = WEIR_FROM_OLDEST},
                                                     .credit_bytes = 20000});
    uint64_t next[SHARDS] = {};
    bool ended[SHARDS] = {};
    unsigned silent = 0;
    for (unsigned i = 0;; i++) {
        uint32_t count = fake_shard_count(f);
        if (i < BATCHES) {
            fake_append(f, count - 1, 1 + (uint32_t)weir_random_below(&random, 30), 1, i % 2);
            if (weir_random_below(&random, 20) == 0 && count + 2 < SHARDS)
                fake_split(f, count - 1);
        } else if (i == BATCHES) {
            fake_set_faults(f, &(struct fake_faults){});
        }
        bool all = true;
        for (uint32_t k = 0; k < count; k++)
            all &= next[k] == fake_next(f, k);
        if (i > BATCHES && all)
            break;
        struct weir_event *e = NULL;
        if (all)
            continue;
        enum weir_status st = weir_poll(s, 20, &e, &error);
        if (st == WEIR_TIMEOUT && ++silent < DEADLINE_MS / 20) {
            fake_heartbeat(f); /* a frame that was left out is noticed by the next one */
            continue;
        }
        cr_assert(st == WEIR_OK, "seed %lu: %s: %s", seed, weir_status_name(st), error.text);
        if (e->kind == WEIR_EVENT_RECORDS) {
            cr_assert(e->first == next[e->shard], "seed %lu: shard %u: %lu after %lu", seed,
                      e->shard, (unsigned long)e->first, (unsigned long)next[e->shard]);
            int parents[2];
            fake_parents(f, e->shard, parents);
            cr_assert(parents[0] < 0 || ended[parents[0]], "seed %lu", seed);
            check_records(e);
            next[e->shard] = e->limit;
        } else if (e->kind == WEIR_EVENT_SHARD_END) {
            cr_assert(ended[e->shard] == false);
            cr_assert(next[e->shard] == fake_next(f, e->shard), "seed %lu", seed);
            ended[e->shard] = true;
        } else {
            cr_assert(e->kind != WEIR_EVENT_GAP && e->kind != WEIR_EVENT_FENCED);
        }
        weir_event_free(e);
    }
    cr_expect(fake_hits(f) > 5, "seed %lu: %u faults", seed, fake_hits(f));
    weir_subscription_close(s);
    weir_client_close(c);
    fake_free(f);
    remove_directory();
}

static uint64_t
setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

#define EACH_SEED(seed)                                                            \
    for (uint64_t seed = setting("WEIR_SEED", 1),                                  \
                  end = seed + setting("WEIR_SEEDS", getenv("WEIR_SEED") ? 1 : 2); \
         seed < end; seed++)

Test(client_subscription_model, lost_connections, .timeout = 300)
{
    EACH_SEED(seed)
    run_model(seed, &(struct fake_faults){.cut_data = 60});
}

Test(client_subscription_model, lost_and_damaged_frames, .timeout = 300)
{
    EACH_SEED(seed)
    run_model(seed, &(struct fake_faults){.cut_data = 20, .skip_data = 50, .flip_data = 30});
}
