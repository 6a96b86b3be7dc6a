/* The whole broker on a disk that fails. */
#include "unit/native/harness.h"

static struct broker broker;

static void
setup(void)
{
    broker_init(&broker);
    broker_start(&broker);
}

static void
teardown(void)
{
    broker_fini(&broker);
}

TestSuite(faults, .init = setup, .fini = teardown, .timeout = 60);

/* Sends it every so often until it is stored. */
static void
put_until_stored(struct raw *r, uint32_t channel, const char *key)
{
    for (int i = 0; i < 100; i++) {
        if (raw_put(r, channel, key, 1, 0, 0).status == WEIR_OK)
            return;
        broker_advance(&broker, 500);
    }
    cr_assert_fail("it never takes writes again: %s", broker.last_log);
}

static uint64_t
count_records(struct raw *r)
{
    struct raw_subscription sub =
        raw_subscribe(r, "orders", 0, raw_position(WEIR__POSITION__KIND__OLDEST, 0), "");
    cr_assert_eq(sub.st, WEIR_OK);
    uint64_t next = 0;
    return raw_drain_data(r, sub.channel, &next);
}

/* While the disk is full writes are refused as retryable and reads go on; when there is space,
 * writing goes on by itself. */
Test(faults, come_back_from_a_full_disk)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    uint32_t channel = raw_producer(r, "orders", 0, 0);
    cr_assert_eq(raw_put(r, channel, "a", 3, 0, 0).status, WEIR_OK);
    weir_memfs_fail_nth(broker.disk, WEIR_MEMFS_WRITE, 1, WEIR_NO_SPACE, true);
    /* What was under way when it happened is not known to be there or not; a retry will tell. */
    cr_expect_eq(raw_put(r, channel, "b", 3, 0, 0).status, WEIR_UNKNOWN);
    cr_expect_eq(raw_put(r, channel, "b", 3, 0, 0).status, WEIR_NO_SPACE);
    cr_expect(weir_status_retryable(WEIR_NO_SPACE));
    cr_expect_eq(count_records(r), 3u);
    broker_advance(&broker, 3000);
    cr_expect_eq(raw_put(r, channel, "b", 3, 0, 0).status, WEIR_NO_SPACE);
    weir_memfs_fail_clear(broker.disk);
    put_until_stored(r, channel, "c");
    cr_expect_eq(count_records(r), 4u);
    raw_close(r);
}

/* After a failed sync nothing is acknowledged that was in it; the broker goes on elsewhere, and
 * after a crash all that was acknowledged is there. */
Test(faults, acknowledge_nothing_after_a_failed_sync)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    uint32_t channel = raw_producer(r, "orders", 0, 0);
    cr_assert_eq(raw_put(r, channel, "a", 3, 0, 0).status, WEIR_OK);
    weir_memfs_fail_nth(broker.disk, WEIR_MEMFS_SYNC, 1, WEIR_IO, false);
    struct weir_frame ack = raw_put(r, channel, "lost", 3, 0, 0);
    cr_expect_neq(ack.status, WEIR_OK);
    put_until_stored(r, channel, "c");
    uint64_t before = count_records(r);
    broker_crash(&broker);
    raw_close(r);
    broker_start(&broker);
    r = raw_open(&broker);
    cr_expect_eq(count_records(r), before);
    raw_close(r);
}

/* A split that cannot be recorded did not happen: the shard takes records again, and the split can
 * be asked for anew. */
Test(faults, give_a_split_up_that_cannot_be_recorded)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    uint32_t channel = raw_producer(r, "orders", 0, 0);
    weir_memfs_fail_nth(broker.disk, WEIR_MEMFS_WRITE, 1, WEIR_NO_SPACE, true);
    cr_expect_eq(raw_split(r, "orders", 0), WEIR_NO_SPACE);
    weir_memfs_fail_clear(broker.disk);
    put_until_stored(r, channel, "a");
    OK(raw_split(r, "orders", 0));
    cr_expect_eq(raw_put(r, channel, "a", 1, 0, 0).status, WEIR_MOVED);
    cr_expect_eq(count_records(r), 1u);
    raw_frame_free(raw_expect(r, WEIR_FRAME_END));
    raw_close(r);
}

/* Where nobody can tell whether the split is on disk, its parent takes no more: it may be closed
 * after the next start. That start finds out, and then records are taken, in the parent or in its
 * children. */
Test(faults, stop_a_shard_whose_split_is_not_known)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    uint32_t channel = raw_producer(r, "orders", 0, 0);
    cr_assert_eq(raw_put(r, channel, "a", 3, 0, 0).status, WEIR_OK);
    weir_memfs_fail_nth(broker.disk, WEIR_MEMFS_SYNC, 1, WEIR_IO, true);
    cr_expect_eq(raw_split(r, "orders", 0), WEIR_UNKNOWN);
    cr_expect_not_null(strstr(broker.last_log, "not known"), "%s", broker.last_log);
    weir_memfs_fail_clear(broker.disk);
    cr_expect_eq(raw_put(r, channel, "a", 1, 0, 0).status, WEIR_MOVED);
    cr_expect_eq(count_records(r), 3u);
    broker_crash(&broker);
    raw_close(r);
    broker_start(&broker);
    r = raw_open(&broker);
    channel = raw_producer(r, "orders", 0, 0);
    if (raw_put(r, channel, "a", 1, 0, 0).status == WEIR_MOVED) {
        char key[32];
        key_for(0, 2, key);
        channel = raw_producer(r, "orders", 1, 0);
        cr_expect_eq(raw_put(r, channel, key, 1, 0, 0).status, WEIR_OK);
    }
    raw_close(r);
}

static void
fail_writes(struct weir_call *call)
{
    (void)call;
    weir_memfs_fail_nth(broker.disk, WEIR_MEMFS_WRITE, 1, WEIR_IO, true);
}

static enum weir_status delete_status;

static void
on_deleted(struct weir_call *call, enum weir_status st)
{
    (void)call;
    delete_status = st;
}

/* A deletion that was begun is finished, if not now then after the next start. */
Test(faults, finish_a_deletion_after_a_crash)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 2));
    struct weir_delete_call call = {
        .call.done = on_deleted, .stream = weir_bytes_of("orders"), .accepted = fail_writes};
    delete_status = WEIR_OK;
    weir_service_delete(broker.service, &call);
    broker_step(&broker);
    cr_expect_neq(delete_status, WEIR_OK);
    weir_memfs_fail_clear(broker.disk);
    cr_expect_eq(raw_create(r, "orders", 1), WEIR_EXISTS, "its name is not free yet");
    broker_crash(&broker);
    raw_close(r);
    broker_start(&broker);
    r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    cr_expect_eq(count_records(r), 0u);
    raw_close(r);
}

/* A start that fails halfway leaves a directory that the next one opens. */
Test(faults, start_again_after_a_start_that_failed)
{
    struct raw *r = raw_open(&broker);
    OK(raw_create(r, "orders", 1));
    cr_assert_eq(raw_put(r, raw_producer(r, "orders", 0, 0), "a", 3, 0, 0).status, WEIR_OK);
    broker_crash(&broker);
    raw_close(r);
    int failed = 0;
    for (uint64_t n = 1; n < 60; n++) {
        struct weir_service *service = NULL;
        struct weir_error err = {0};
        weir_memfs_fail_nth(broker.disk, WEIR_MEMFS_ANY, n, WEIR_IO, true);
        enum weir_status st = weir_service_open(&broker.config, &service, &err);
        weir_memfs_fail_clear(broker.disk);
        failed += st != WEIR_OK;
        cr_expect(st == WEIR_OK || err.text[0], "call %d: no reason", (int)n);
        weir_service_close(service);
    }
    cr_expect_gt(failed, 0);
    broker_start(&broker);
    r = raw_open(&broker);
    cr_expect_eq(count_records(r), 3u);
    raw_close(r);
}
