#include "unit/meta/table.h"

/* What was committed is there after a restart, with versions that count the puts. */
Test(meta, keeps_rows_and_counts_versions)
{
    struct table t;
    table_init(&t);
    OK(table_open(&t));
    OK(put(&t, "stream/orders", "one", 0));
    OK(put(&t, "stream/orders", "two", 1));
    OK(put(&t, "stream/orders", "", WEIR_META_ANY));
    OK(put(&t, "stream/carts", "x", WEIR_META_ANY));
    table_reopen(&t);
    cr_expect(eq(u64, find(&t, "stream/orders").version, 3));
    cr_expect(says(find(&t, "stream/orders"), ""));
    cr_expect(says(find(&t, "stream/carts"), "x"));
    OK(delete (&t, "stream/carts", 1));
    cr_expect(eq(sz, find(&t, "stream/carts").count, 0));
    table_fini(&t);
}

/* A commit whose version does not hold changes nothing, says which operation it was, and leaves the
 * others of its group alone. */
Test(meta, refuses_one_commit_of_a_group)
{
    struct table t;
    table_init(&t);
    OK(table_open(&t));
    OK(put(&t, "a", "1", 0));
    struct noted first, stale, last;
    begin(&first);
    begin(&stale);
    begin(&last);
    weir_meta_put(&first.commit, "b", text("1"), 0);
    weir_meta_put(&stale.commit, "c", text("1"), 0);
    weir_meta_put(&stale.commit, "a", text("2"), 2);
    weir_meta_put(&last.commit, "b", text("2"), 1);
    weir_meta_commit(t.meta, &first.commit);
    weir_meta_commit(t.meta, &stale.commit);
    weir_meta_commit(t.meta, &last.commit);
    cr_expect(first.answered == false);
    table_step(&t);
    OK(first.st);
    IS(stale.st, WEIR_FENCED);
    cr_expect(eq(sz, stale.commit.failed_op, 1));
    OK(last.st);
    cr_expect(first.order < stale.order && stale.order < last.order);
    cr_expect(says(find(&t, "a"), "1"));
    cr_expect(says(find(&t, "b"), "2"));
    cr_expect(eq(sz, find(&t, "c").count, 0));
    table_fini(&t);
}

/* Expecting that a row is not there refuses where it is, for puts and deletes; deleting what is not
 * there is allowed. */
Test(meta, expects_absence)
{
    struct table t;
    table_init(&t);
    OK(table_open(&t));
    OK(put(&t, "a", "1", 0));
    IS(put(&t, "a", "2", 0), WEIR_FENCED);
    IS(delete (&t, "a", 0), WEIR_FENCED);
    IS(delete (&t, "a", 2), WEIR_FENCED);
    IS(delete (&t, "b", 1), WEIR_FENCED);
    OK(delete (&t, "b", 0));
    OK(delete (&t, "b", WEIR_META_ANY));
    OK(delete (&t, "a", 1));
    OK(put(&t, "a", "again", 0));
    cr_expect(eq(u64, find(&t, "a").version, 1));
    table_fini(&t);
}

/* Commits that wait while a transaction runs share the next one: a hundred of them cost two syncs.
 */
Test(meta, groups_what_waits)
{
    struct table t;
    table_init(&t);
    OK(table_open(&t));
    OK(put(&t, "first", "1", 0));
    uint64_t before = weir_memfs_calls(t.disk, WEIR_MEMFS_SYNC);
    struct noted n[100];
    for (int i = 0; i < 100; i++) {
        char key[16];
        snprintf(key, sizeof key, "row/%03d", i);
        begin(&n[i]);
        weir_meta_put(&n[i].commit, key, text("v"), 0);
        weir_meta_commit(t.meta, &n[i].commit);
    }
    table_step(&t);
    for (int i = 0; i < 100; i++)
        OK(n[i].st);
    cr_expect(le(u64, weir_memfs_calls(t.disk, WEIR_MEMFS_SYNC) - before, 2));
    cr_expect(eq(sz, find(&t, "row/").count, 100));
    table_fini(&t);
}

static enum weir_status
each_in_order(void *arg, const char *key, struct weir_bytes value, uint64_t version)
{
    (void)value;
    (void)version;
    char *last = arg;
    cr_expect(lt(int, strcmp(last, key), 0));
    snprintf(last, 64, "%s", key);
    return strcmp(key, "b/2") == 0 ? WEIR_END : WEIR_OK;
}

/* A scan gives the rows of the prefix alone, in key order, and stops where the caller says so. */
Test(meta, scans_by_prefix_in_order)
{
    struct table t;
    table_init(&t);
    OK(table_open(&t));
    const char *keys[] = {"b/2", "b", "b/1", "a/9", "b/10", "c", "b0"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        OK(put(&t, keys[i], "v", 0));
    cr_expect(eq(sz, find(&t, "b/").count, 3));
    cr_expect(eq(sz, find(&t, "").count, 7));
    cr_expect(eq(sz, find(&t, "d").count, 0));
    char last[64] = "";
    IS(weir_meta_scan(t.meta, "b/", each_in_order, last, NULL), WEIR_END);
    cr_expect(strcmp(last, "b/2") == 0);
    table_fini(&t);
}

/* Keys and values over their limits refuse their commit, whole; at the limit they are kept. */
Test(meta, bounds_keys_and_values)
{
    struct table t;
    table_init(&t);
    OK(table_open(&t));
    char key[WEIR_META_KEY_MAX + 2];
    memset(key, 'k', sizeof key);
    key[WEIR_META_KEY_MAX + 1] = '\0';
    IS(put(&t, key, "v", 0), WEIR_TOO_BIG);
    key[WEIR_META_KEY_MAX] = '\0';
    OK(put(&t, key, "v", 0));

    uint8_t *value = calloc(1, WEIR_META_VALUE_MAX + 1);
    struct noted n;
    begin(&n);
    weir_meta_put(&n.commit, "small", text("v"), 0);
    weir_meta_put(&n.commit, "big", weir_bytes(value, WEIR_META_VALUE_MAX + 1), 0);
    IS(finish_commit(&t, &n), WEIR_TOO_BIG);
    cr_expect(eq(sz, find(&t, "small").count, 0));
    begin(&n);
    weir_meta_put(&n.commit, "big", weir_bytes(value, WEIR_META_VALUE_MAX), 0);
    OK(finish_commit(&t, &n));
    free(value);
    table_fini(&t);
}

/* A commit without operations is answered in its place of the order and writes nothing. */
Test(meta, answers_an_empty_commit)
{
    struct table t;
    table_init(&t);
    OK(table_open(&t));
    OK(put(&t, "a", "1", 0));
    uint64_t before = weir_memfs_calls(t.disk, WEIR_MEMFS_WRITE);
    struct noted n;
    begin(&n);
    OK(finish_commit(&t, &n));
    cr_expect(eq(u64, weir_memfs_calls(t.disk, WEIR_MEMFS_WRITE), before));
    table_fini(&t);
}

/* At start-up commits are made without the loop. */
Test(meta, commits_now)
{
    struct table t;
    table_init(&t);
    OK(table_open(&t));
    struct weir_meta_commit c = {0};
    weir_meta_put(&c, "id", text("x"), 0);
    OK(weir_meta_commit_now(t.meta, &c, &t.err));
    c = (struct weir_meta_commit){0};
    weir_meta_put(&c, "id", text("y"), 0);
    IS(weir_meta_commit_now(t.meta, &c, &t.err), WEIR_FENCED);
    table_reopen(&t);
    cr_expect(says(find(&t, "id"), "x"));
    table_fini(&t);
}

/* Closing finishes what was committed. */
Test(meta, finishes_on_close)
{
    struct table t;
    table_init(&t);
    OK(table_open(&t));
    struct noted n[3];
    const char *keys[] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++) {
        begin(&n[i]);
        weir_meta_put(&n[i].commit, keys[i], text("v"), 0);
        weir_meta_commit(t.meta, &n[i].commit);
    }
    table_reopen(&t);
    for (int i = 0; i < 3; i++)
        OK(n[i].st);
    cr_expect(eq(sz, find(&t, "").count, 3));
    table_fini(&t);
}

/* The log beside the table does not grow without end, and 10,000 rows in one commit are one commit.
 */
Test(meta, moves_its_log)
{
    struct table t;
    table_init(&t);
    OK(table_open(&t));
    struct noted n;
    for (int round = 0; round < 8; round++) {
        begin(&n);
        for (int i = 0; i < 10000; i++) {
            char key[16], value[100];
            snprintf(key, sizeof key, "row/%06d", i);
            snprintf(value, sizeof value, "%080d", round);
            weir_meta_put(&n.commit, key, text(value), (uint64_t)round);
        }
        OK(finish_commit(&t, &n));
    }
    uint64_t size;
    OK(weir_memfs_size(t.disk, "meta.db-wal", &size));
    cr_expect(lt(u64, size, 6000000));
    cr_expect(eq(u64, find(&t, "row/009999").version, 8));
    table_reopen(&t);
    cr_expect(eq(sz, find(&t, "row/").count, 10000));
    cr_expect(eq(u64, find(&t, "row/").version, 8));
    table_fini(&t);
}

/* With real threads: commits from the control loop, work on the pool, answers on the loop. */
struct storm {
    struct weir_task task;
    struct weir_meta *meta;
    struct weir_loop *loop;
    struct noted n[500];
    int answers, failures;
    _Atomic bool ended;
};

static void
count_answer(struct weir_meta_commit *c, enum weir_status st)
{
    struct storm *s = *(struct storm **)(void *)(c + 1);
    cr_assert(weir_loop_is_current(s->loop));
    s->failures += st != WEIR_OK;
    s->answers++;
    s->ended = s->answers == 500;
}

struct storm_commit {
    struct weir_meta_commit commit;
    struct storm *storm;
};
static struct storm_commit *storm_commits;

static void
start_storm(struct weir_task *task)
{
    struct storm *s = WEIR_CONTAINER(task, struct storm, task);
    for (int i = 0; i < 500; i++) {
        struct storm_commit *c = &storm_commits[i];
        *c = (struct storm_commit){.commit.done = count_answer, .storm = s};
        char key[16];
        snprintf(key, sizeof key, "row/%d", i % 50);
        weir_meta_put(&c->commit, key, text("v"), WEIR_META_ANY);
        weir_meta_commit(s->meta, &c->commit);
    }
}

Test(meta, works_on_threads)
{
    struct table t;
    table_init(&t);
    weir_pool_free(t.sys.pool);
    OK(weir_pool_new("pool", 2, &t.sys.pool));
    t.sys.threads = true;
    OK(table_open(&t));
    static struct storm s;
    storm_commits = calloc(500, sizeof *storm_commits);
    s.task.run = start_storm;
    s.meta = t.meta;
    s.loop = t.loop;
    OK(weir_loop_start(t.loop));
    weir_loop_post(t.loop, &s.task);
    weir_loop_stop(t.loop);
    table_close(&t);
    cr_expect(eq(int, s.answers, 500));
    cr_expect(eq(int, s.failures, 0));
    OK(table_open(&t));
    cr_expect(eq(sz, find(&t, "row/").count, 50));
    cr_expect(eq(u64, find(&t, "row/9").version, 10));
    free(storm_commits);
    table_fini(&t);
}
