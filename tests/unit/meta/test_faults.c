#include "unit/meta/table.h"

/* A table with one row that every restart must find. */
static void
start(struct table *t)
{
    table_init(t);
    OK(table_open(t));
    OK(put(t, "kept", "before", 0));
}

static void
expect_sound(struct table *t, const char *where, unsigned long n)
{
    enum weir_status st = table_open(t);
    cr_assert(st == WEIR_OK, "%s, call %lu: %s", where, n, t->err.text);
    cr_assert(strcmp(find(t, "kept").value, "before") == 0, "%s, call %lu", where, n);
}

/* Six commits, some of them larger than the page cache of one page; returns what each was answered.
 */
enum { COMMITS = 6, ROWS = 25 };
static void
run_commits(struct table *t, struct noted n[COMMITS])
{
    for (int i = 0; i < COMMITS; i++) {
        begin(&n[i]);
        for (int row = 0; row < ROWS; row++) {
            char key[32], value[200];
            snprintf(key, sizeof key, "c%d/%02d", i, row);
            snprintf(value, sizeof value, "%0199d", i);
            weir_meta_put(&n[i].commit, key, text(value), 0);
        }
        weir_meta_commit(t->meta, &n[i].commit);
        if (i % 2)
            table_step(t);
    }
    table_step(t);
}

/* Answered OK: all of it is there. Answered UNKNOWN: all or nothing. Else: nothing. */
static void
expect_kept_word(struct table *t, const struct noted n[COMMITS], const char *where,
                 unsigned long at)
{
    for (int i = 0; i < COMMITS; i++) {
        char prefix[8];
        snprintf(prefix, sizeof prefix, "c%d/", i);
        size_t count = find(t, prefix).count;
        cr_assert(n[i].answered);
        if (n[i].st == WEIR_OK)
            cr_assert(count == ROWS, "%s, call %lu, commit %d: %zu rows", where, at, i, count);
        else if (n[i].st == WEIR_UNKNOWN)
            cr_assert(count == 0 || count == ROWS, "%s, call %lu, commit %d: %zu rows", where, at,
                      i, count);
        else
            cr_assert(count == 0, "%s, call %lu, commit %d answered %s: %zu rows", where, at, i,
                      weir_status_text(n[i].st), count);
    }
}

struct fault {
    const char *name;
    enum weir_memfs_call call;
    enum weir_status st;
    bool sticky;
};

/* Whichever call below fails, and whatever of the unsynced bytes a power cut then keeps: what was
 * answered is what a restart finds. */
static void
sweep(const struct fault *f)
{
    int unknown = 0, failed = 0;
    for (unsigned long n = 1;; n++) {
        struct table t;
        start(&t);
        uint64_t before = weir_memfs_calls(t.disk, f->call);
        weir_memfs_fail_nth(t.disk, f->call, n, f->st, f->sticky);
        struct noted commits[COMMITS];
        run_commits(&t, commits);
        bool reached = weir_memfs_calls(t.disk, f->call) - before >= n;
        for (int i = 0; i < COMMITS; i++) {
            unknown += commits[i].st == WEIR_UNKNOWN;
            failed += commits[i].st != WEIR_OK;
        }

        for (int keep = WEIR_MEMFS_KEEP_SYNCED; keep <= WEIR_MEMFS_KEEP_SOME; keep++) {
            for (uint64_t seed = 1; seed <= (keep == WEIR_MEMFS_KEEP_SOME ? 2 : 1); seed++) {
                struct table after;
                table_init_on(&after, weir_memfs_fork(t.disk, (enum weir_memfs_cut)keep, seed));
                weir_memfs_fail_clear(after.disk);
                expect_sound(&after, f->name, n);
                expect_kept_word(&after, commits, f->name, n);
                table_fini(&after);
            }
        }
        /* The same without a cut: an orderly end and a start. */
        weir_memfs_fail_clear(t.disk);
        table_close(&t);
        expect_sound(&t, f->name, n);
        expect_kept_word(&t, commits, f->name, n);
        OK(put(&t, "new", "1", 0));
        table_fini(&t);
        if (!reached)
            break;
    }
    cr_expect(gt(int, failed, 0), "%s: no fault was seen", f->name);
    if (f->call == WEIR_MEMFS_WRITE && !f->sticky)
        cr_expect(eq(int, unknown, 0), "%s: a failed write is undone", f->name);
}

Test(meta_faults, keeps_its_word_when_a_write_fails)
{
    sweep(&(struct fault){"write EIO", WEIR_MEMFS_WRITE, WEIR_IO, false});
}

Test(meta_faults, keeps_its_word_when_writes_fail_from_then_on)
{
    sweep(&(struct fault){"writes EIO", WEIR_MEMFS_WRITE, WEIR_IO, true});
}

Test(meta_faults, keeps_its_word_when_the_disk_is_full)
{
    sweep(&(struct fault){"writes ENOSPC", WEIR_MEMFS_WRITE, WEIR_NO_SPACE, true});
}

Test(meta_faults, keeps_its_word_when_a_sync_fails)
{
    sweep(&(struct fault){"sync EIO", WEIR_MEMFS_SYNC, WEIR_IO, false});
}

Test(meta_faults, keeps_its_word_when_syncs_fail_from_then_on)
{
    sweep(&(struct fault){"syncs ENOSPC", WEIR_MEMFS_SYNC, WEIR_NO_SPACE, true});
}

/* A disk on which the n-th write arrives whole and is reported as failed. */
struct liar {
    struct weir_fs fs;
    struct weir_fs *below;
    struct weir_fs_ops ops;
    unsigned long countdown; /* 0: honest */
};

struct liar_file {
    struct weir_file file;
    struct weir_file *below;
    struct liar *liar;
};

static struct weir_file *
below(struct weir_file *f)
{
    return ((struct liar_file *)(void *)f)->below;
}

static enum weir_status
liar_pread(struct weir_file *f, void *buf, size_t len, uint64_t off, size_t *read_out)
{
    return weir_file_pread(below(f), buf, len, off, read_out);
}

static enum weir_status
liar_pwritev(struct weir_file *f, const struct iovec *iov, int count, uint64_t off)
{
    struct liar *liar = ((struct liar_file *)(void *)f)->liar;
    enum weir_status st = weir_file_pwritev(below(f), iov, count, off);
    return !st && liar->countdown && --liar->countdown == 0 ? WEIR_IO : st;
}

static enum weir_status
liar_datasync(struct weir_file *f)
{
    return weir_file_datasync(below(f));
}

static enum weir_status
liar_truncate(struct weir_file *f, uint64_t size)
{
    return weir_file_truncate(below(f), size);
}

static enum weir_status
liar_size(struct weir_file *f, uint64_t *out)
{
    return weir_file_size(below(f), out);
}

static void
liar_close(struct weir_file *f)
{
    weir_file_close(below(f));
    free(f);
}

static const struct weir_file_ops liar_file_ops = {
    .pread = liar_pread,
    .pwritev = liar_pwritev,
    .datasync = liar_datasync,
    .truncate = liar_truncate,
    .size = liar_size,
    .close = liar_close,
};

static enum weir_status
liar_open(struct weir_fs *fs, const char *path, int flags, struct weir_file **out)
{
    struct liar *liar = (struct liar *)(void *)fs;
    struct weir_file *f;
    enum weir_status st = weir_fs_open(liar->below, path, flags, &f);
    if (st)
        return st;
    struct liar_file *file = calloc(1, sizeof *file);
    *file = (struct liar_file){{&liar_file_ops}, f, liar};
    *out = &file->file;
    return WEIR_OK;
}

static enum weir_status
liar_remove(struct weir_fs *fs, const char *path)
{
    return weir_fs_remove(((struct liar *)(void *)fs)->below, path);
}

static enum weir_status
liar_sync_directory(struct weir_fs *fs, const char *path)
{
    return weir_fs_sync_directory(((struct liar *)(void *)fs)->below, path);
}

/* A write may have arrived although it failed, even the one that completes a transaction: what was
 * answered as failed is not there after a restart. */
Test(meta_faults, takes_back_a_commit_that_arrived_although_its_write_failed)
{
    for (unsigned long n = 1; n <= 6; n++) {
        struct table t;
        start(&t);
        table_close(&t);
        struct liar liar = {.below = t.sys.fs,
                            .ops = {.open = liar_open,
                                    .remove = liar_remove,
                                    .sync_directory = liar_sync_directory}};
        liar.fs.ops = &liar.ops;
        t.sys.fs = &liar.fs;
        OK(table_open(&t));
        OK(put(&t, "warm", "1", 0));
        liar.countdown = n;
        enum weir_status first = put(&t, "a", "1", 0);
        for (int keep = WEIR_MEMFS_KEEP_SYNCED; keep <= WEIR_MEMFS_KEEP_SOME; keep++) {
            struct table after;
            table_init_on(&after, weir_memfs_fork(t.disk, (enum weir_memfs_cut)keep, n));
            expect_sound(&after, "liar", n);
            size_t count = find(&after, "a").count;
            cr_assert(count == (first == WEIR_OK), "write %lu, keep %d: answered %s, %zu rows", n,
                      keep, weir_status_text(first), count);
            table_fini(&after);
        }
        liar.countdown = 0;
        OK(put(&t, "a", "2", WEIR_META_ANY));
        table_close(&t);
        t.sys.fs = liar.below;
        expect_sound(&t, "liar", n);
        cr_assert(says(find(&t, "a"), "2"));
        table_fini(&t);
    }
}

/* A full disk refuses commits as NO_SPACE, the table stays open, and service returns by itself. */
Test(meta_faults, comes_back_when_there_is_space)
{
    struct table t;
    start(&t);
    weir_memfs_fail_nth(t.disk, WEIR_MEMFS_WRITE, 1, WEIR_NO_SPACE, true);
    IS(put(&t, "a", "1", 0), WEIR_NO_SPACE);
    IS(put(&t, "b", "1", 0), WEIR_NO_SPACE);
    cr_expect(ne(sz, strlen(weir_meta_fault(t.meta)->text), 0));
    weir_memfs_fail_clear(t.disk);
    OK(put(&t, "b", "1", 0));
    table_cut(&t, WEIR_MEMFS_KEEP_SYNCED, 1);
    OK(table_open(&t));
    cr_expect(eq(sz, find(&t, "a").count, 0));
    cr_expect(says(find(&t, "b"), "1"));
    table_fini(&t);
}

/* After a failed sync of the log the table takes no more commits, and says that they changed
 * nothing. */
Test(meta_faults, closes_after_a_failed_sync)
{
    struct table t;
    start(&t);
    weir_memfs_fail_nth(t.disk, WEIR_MEMFS_SYNC, 1, WEIR_IO, false);
    IS(put(&t, "a", "1", 0), WEIR_UNKNOWN);
    IS(put(&t, "b", "1", 0), WEIR_UNAVAILABLE);
    cr_expect(eq(int, weir_meta_fault(t.meta)->status, WEIR_UNKNOWN));
    table_reopen(&t);
    cr_expect(eq(sz, find(&t, "b").count, 0));
    OK(put(&t, "b", "1", 0));
    table_fini(&t);
}

/* The power goes at each sync and each write in turn, from the very first open on: the next start
 * works and finds what was answered OK. */
Test(meta_faults, survives_a_cut_at_every_call)
{
    const enum weir_memfs_call calls[] = {WEIR_MEMFS_SYNC, WEIR_MEMFS_WRITE,
                                          WEIR_MEMFS_SYNC_DIRECTORY, WEIR_MEMFS_RENAME,
                                          WEIR_MEMFS_REMOVE};
    for (size_t k = 0; k < sizeof calls / sizeof *calls; k++) {
        for (unsigned long n = 1;; n++) {
            struct table t;
            table_init(&t);
            /* Nothing succeeds from this call on: the machine is gone. */
            weir_memfs_fail_nth(t.disk, calls[k], n, WEIR_IO, true);
            struct noted commits[COMMITS];
            bool opened = table_open(&t) == WEIR_OK;
            if (opened)
                run_commits(&t, commits);
            bool reached = weir_memfs_calls(t.disk, calls[k]) >= n;
            for (uint64_t seed = 0; seed < 4; seed++) {
                struct table after;
                enum weir_memfs_cut keep = seed == 0   ? WEIR_MEMFS_KEEP_SYNCED
                                           : seed == 1 ? WEIR_MEMFS_KEEP_ALL
                                                       : WEIR_MEMFS_KEEP_SOME;
                table_init_on(&after, weir_memfs_fork(t.disk, keep, seed));
                weir_memfs_fail_clear(after.disk);
                enum weir_status st = table_open(&after);
                cr_assert(st == WEIR_OK, "kind %d, call %lu, seed %lu: %s", calls[k], n, seed,
                          after.err.text);
                if (opened)
                    expect_kept_word(&after, commits, "cut", n);
                OK(put(&after, "new", "1", 0));
                table_fini(&after);
            }
            weir_memfs_power_cut(t.disk, WEIR_MEMFS_KEEP_SYNCED, n);
            table_fini(&t);
            if (!reached)
                break;
        }
    }
}

/* Moving the log into the table's file may fail at any write and sync: nothing that was answered is
 * lost, and the table goes on. */
Test(meta_faults, survives_failures_while_its_log_is_moved)
{
    const enum weir_memfs_call calls[] = {WEIR_MEMFS_WRITE, WEIR_MEMFS_SYNC};
    for (size_t k = 0; k < 2; k++) {
        for (unsigned long n = 1; n < 40; n += k == 0 ? 9 : 1) {
            struct table t;
            start(&t);
            struct noted big;
            begin(&big);
            for (int i = 0; i < 5000; i++) {
                char key[16];
                snprintf(key, sizeof key, "row/%05d", i);
                weir_meta_put(
                    &big.commit, key,
                    text("0123456789012345678901234567890123456789012345678901234567890123456789"
                         "0123456789012345678901234567890123456789012345678901234567890123456789"),
                    0);
            }
            weir_meta_commit(t.meta, &big.commit);
            while (!big.answered)
                weir_loop_step(t.loop, 1);
            OK(big.st);
            /* From here on: the move. */
            weir_memfs_fail_nth(t.disk, calls[k], n, WEIR_IO, false);
            table_step(&t);
            weir_memfs_fail_clear(t.disk);
            OK(put(&t, "later", "1", 0));
            table_cut(&t, WEIR_MEMFS_KEEP_SOME, n);
            expect_sound(&t, "move", n);
            cr_assert(find(&t, "row/").count == 5000, "kind %zu, call %lu: %zu rows", k, n,
                      find(&t, "row/").count);
            cr_assert(says(find(&t, "later"), "1"), "kind %zu, call %lu", k, n);
            table_fini(&t);
        }
    }
}

/* A read that fails fails its commit and nothing else. */
Test(meta_faults, goes_on_after_a_failed_read)
{
    struct table t;
    start(&t);
    table_reopen(&t);
    weir_memfs_fail_nth(t.disk, WEIR_MEMFS_READ, 1, WEIR_IO, false);
    enum weir_status st = put(&t, "a", "1", 0);
    cr_expect(st == WEIR_OK || st == WEIR_IO);
    weir_memfs_fail_clear(t.disk);
    OK(put(&t, "b", "1", 0));
    table_fini(&t);
}
