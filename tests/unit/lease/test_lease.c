#include "lease/lease.h"
#include "unit/meta/table.h"

struct rig {
    struct table table;
    struct weir_leases *leases;
    struct weir_error err;
};

static enum weir_status
rig_open(struct rig *r)
{
    enum weir_status st = table_open(&r->table);
    return st ? st : weir_leases_open(r->table.meta, r->table.sys.clock, &r->leases, &r->err);
}

static void
rig_init(struct rig *r)
{
    *r = (struct rig){0};
    table_init(&r->table);
    OK(rig_open(r));
}

static void
rig_close(struct rig *r)
{
    weir_leases_close(r->leases);
    r->leases = NULL;
    table_close(&r->table);
}

static void
rig_reopen(struct rig *r)
{
    rig_close(r);
    OK(rig_open(r));
}

static void
rig_fini(struct rig *r)
{
    rig_close(r);
    table_fini(&r->table);
}

struct answer {
    struct weir_lease_change change;
    bool answered;
    enum weir_status st;
    int order;
};

static void
note_change(struct weir_lease_change *change, enum weir_status st)
{
    static int order;
    struct answer *a = WEIR_CONTAINER(change, struct answer, change);
    WEIR_ASSERT(!a->answered);
    WEIR_ASSERT(change->err.status == st);
    a->answered = true;
    a->st = st;
    a->order = order++;
}

static void
begin_answer(struct answer *a)
{
    *a = (struct answer){.change.done = note_change};
}

static struct answer
finish(struct rig *r, struct answer *a)
{
    WEIR_ASSERT(!a->answered);
    table_step(&r->table);
    WEIR_ASSERT(a->answered);
    return *a;
}

static struct answer
acquire(struct rig *r, uint64_t stream, const char *consumer, uint32_t shard, const char *owner)
{
    struct answer a;
    begin_answer(&a);
    weir_lease_acquire(r->leases, stream, text(consumer), shard, text(owner), &a.change);
    return finish(r, &a);
}

static struct answer
set(struct rig *r, uint64_t stream, const char *consumer, uint32_t shard, uint64_t epoch,
    uint64_t offset)
{
    struct answer a;
    begin_answer(&a);
    weir_lease_checkpoint(r->leases, stream, text(consumer), shard, epoch, offset, false,
                          &a.change);
    return finish(r, &a);
}

static struct answer
reset(struct rig *r, uint64_t stream, const char *consumer)
{
    struct answer a;
    begin_answer(&a);
    weir_lease_reset(r->leases, stream, text(consumer), &a.change);
    return finish(r, &a);
}

static struct answer
drop(struct rig *r, uint64_t stream)
{
    struct answer a;
    begin_answer(&a);
    weir_lease_drop_stream(r->leases, stream, &a.change);
    return finish(r, &a);
}

static const struct weir_checkpoint_row *
row(struct rig *r, uint64_t stream, const char *consumer, uint32_t shard)
{
    return weir_lease_find(r->leases, stream, text(consumer), shard);
}

/* An owner's checkpoints are kept, with owner, epoch and time, over a restart. */
Test(lease, keeps_checkpoints)
{
    struct rig r;
    rig_init(&r);
    struct answer a = acquire(&r, 1, "mail", 0, "worker-1");
    OK(a.st);
    cr_expect(eq(u64, a.change.row.epoch, 1));
    cr_expect(a.change.row.set == false);
    OK(set(&r, 1, "mail", 0, 1, 42).st);
    weir_clock_manual_advance(&r.table.clock, 5);
    a = set(&r, 1, "mail", 0, 1, 43);
    OK(a.st);
    cr_expect(eq(u64, a.change.row.offset, 43));
    rig_reopen(&r);
    const struct weir_checkpoint_row *row0 = row(&r, 1, "mail", 0);
    cr_assert(row0 != NULL);
    cr_expect(eq(u64, row0->stream, 1));
    cr_expect(eq(u64, row0->offset, 43));
    cr_expect(eq(u64, row0->epoch, 1));
    cr_expect(eq(u64, row0->updated_ms, 1764320000005));
    cr_expect(strcmp(row0->owner, "worker-1") == 0 && strcmp(row0->consumer, "mail") == 0);
    cr_expect(row0->set && row0->shard_end == false);
    cr_expect(row(&r, 1, "mail", 1) == NULL);
    cr_expect(row(&r, 2, "mail", 0) == NULL);
    cr_expect(row(&r, 1, "mai", 0) == NULL);
    rig_fini(&r);
}

/* Whoever was taken over is refused, with the row as it is; so is an epoch that nobody was given.
 */
Test(lease, fences_stale_owners)
{
    struct rig r;
    rig_init(&r);
    OK(acquire(&r, 1, "mail", 0, "one").st);
    OK(set(&r, 1, "mail", 0, 1, 10).st);
    struct answer a = acquire(&r, 1, "mail", 0, "two");
    OK(a.st);
    cr_expect(eq(u64, a.change.row.epoch, 2));
    cr_expect(eq(u64, a.change.row.offset, 10));
    a = set(&r, 1, "mail", 0, 1, 11);
    IS(a.st, WEIR_FENCED);
    cr_expect(eq(u64, a.change.row.epoch, 2));
    cr_expect(eq(u64, a.change.row.offset, 10));
    cr_expect(strcmp(a.change.row.owner, "two") == 0);
    IS(set(&r, 1, "mail", 0, 3, 11).st, WEIR_FENCED);
    OK(set(&r, 1, "mail", 0, 2, 12).st);
    a = set(&r, 1, "other", 0, 1, 12);
    IS(a.st, WEIR_FENCED);
    cr_expect(eq(u64, a.change.row.epoch, 0));
    rig_reopen(&r);
    cr_expect(eq(u64, row(&r, 1, "mail", 0)->offset, 12));
    IS(set(&r, 1, "mail", 0, 1, 13).st, WEIR_FENCED);
    rig_fini(&r);
}

/* An operator's set needs no epoch, takes a new one, and so fences the owner that runs. */
Test(lease, lets_an_operator_set)
{
    struct rig r;
    rig_init(&r);
    struct answer a = set(&r, 1, "mail", 3, 0, 100);
    OK(a.st);
    cr_expect(eq(u64, a.change.row.epoch, 1));
    OK(acquire(&r, 1, "mail", 3, "one").st);
    a = set(&r, 1, "mail", 3, 0, 50);
    OK(a.st);
    cr_expect(eq(u64, a.change.row.epoch, 3));
    cr_expect(eq(u64, a.change.row.offset, 50));
    cr_expect(strcmp(a.change.row.owner, "") == 0);
    IS(set(&r, 1, "mail", 3, 2, 101).st, WEIR_FENCED);
    rig_fini(&r);
}

/* The end of a shard is a position of its own, and can be taken back. */
Test(lease, marks_the_end_of_a_shard)
{
    struct rig r;
    rig_init(&r);
    OK(acquire(&r, 1, "mail", 0, "one").st);
    struct answer a;
    begin_answer(&a);
    weir_lease_checkpoint(r.leases, 1, text("mail"), 0, 1, 99, true, &a.change);
    OK(finish(&r, &a).st);
    rig_reopen(&r);
    cr_expect(row(&r, 1, "mail", 0)->shard_end);
    OK(set(&r, 1, "mail", 0, 1, 5).st);
    cr_expect(row(&r, 1, "mail", 0)->shard_end == false);
    rig_fini(&r);
}

/* A reset forgets the positions of one consumer, fences its owners, and leaves the others. */
Test(lease, resets_one_consumer)
{
    struct rig r;
    rig_init(&r);
    for (uint32_t shard = 0; shard < 3; shard++) {
        OK(acquire(&r, 1, "mail", shard, "one").st);
        OK(set(&r, 1, "mail", shard, 1, 7).st);
        OK(set(&r, 1, "audit", shard, 0, 8).st);
        OK(set(&r, 2, "mail", shard, 0, 9).st);
    }
    OK(reset(&r, 1, "mail").st);
    rig_reopen(&r);
    for (uint32_t shard = 0; shard < 3; shard++) {
        cr_expect(row(&r, 1, "mail", shard)->set == false);
        cr_expect(eq(u64, row(&r, 1, "mail", shard)->epoch, 2));
        IS(set(&r, 1, "mail", shard, 1, 8).st, WEIR_FENCED);
        cr_expect(eq(u64, row(&r, 1, "audit", shard)->offset, 8));
        cr_expect(eq(u64, row(&r, 2, "mail", shard)->offset, 9));
    }
    OK(reset(&r, 1, "nobody").st);
    rig_fini(&r);
}

/* With a stream go all its rows, also those that wait to be written. */
Test(lease, drops_a_stream)
{
    struct rig r;
    rig_init(&r);
    OK(set(&r, 1, "mail", 0, 0, 1).st);
    OK(set(&r, 2, "mail", 0, 0, 1).st);
    struct answer late, dropped, again;
    begin_answer(&late);
    begin_answer(&dropped);
    begin_answer(&again);
    weir_lease_checkpoint(r.leases, 1, text("mail"), 9, 0, 1, false, &late.change);
    weir_lease_drop_stream(r.leases, 1, &dropped.change);
    weir_lease_acquire(r.leases, 1, text("mail"), 4, text("x"), &again.change);
    table_step(&r.table);
    OK(late.st);
    OK(dropped.st);
    OK(again.st);
    cr_expect(eq(u64, again.change.row.epoch, 1));
    OK(drop(&r, 1).st);
    OK(drop(&r, 77).st);
    cr_expect(eq(sz, find(&r.table, "lease/").count, 1));
    rig_reopen(&r);
    cr_expect(row(&r, 1, "mail", 0) == NULL);
    cr_expect(row(&r, 2, "mail", 0) != NULL);
    rig_fini(&r);
}

/* Sets that wait for a commit are one write per row, judged and answered in the order of the calls.
 */
Test(lease, writes_a_row_once_per_commit)
{
    struct rig r;
    rig_init(&r);
    OK(acquire(&r, 1, "mail", 0, "one").st);
    uint64_t before = weir_memfs_calls(r.table.disk, WEIR_MEMFS_SYNC);
    static struct answer a[1000];
    for (int i = 0; i < 1000; i++) {
        begin_answer(&a[i]);
        if (i == 600)
            weir_lease_acquire(r.leases, 1, text("mail"), 0, text("two"), &a[i].change);
        else
            weir_lease_checkpoint(r.leases, 1, text("mail"), 0, 1, (uint64_t)i, false,
                                  &a[i].change);
    }
    cr_expect(eq(u64, row(&r, 1, "mail", 0)->offset, 0));
    table_step(&r.table);
    for (int i = 0; i < 1000; i++) {
        IS(a[i].st, i <= 600 ? WEIR_OK : WEIR_FENCED);
        cr_expect(eq(u64, a[i].change.row.offset, i < 600 ? (uint64_t)i : 599));
        cr_expect(i == 0 || a[i - 1].order < a[i].order);
    }
    cr_expect(le(u64, weir_memfs_calls(r.table.disk, WEIR_MEMFS_SYNC) - before, 2));
    cr_expect(le(u64, find(&r.table, "lease/").version, 3));
    rig_reopen(&r);
    cr_expect(eq(u64, row(&r, 1, "mail", 0)->offset, 599));
    cr_expect(eq(u64, row(&r, 1, "mail", 0)->epoch, 2));
    rig_fini(&r);
}

/* Names of consumers and owners are checked; nothing is left of what was refused. */
Test(lease, refuses_bad_names)
{
    struct rig r;
    rig_init(&r);
    char name[WEIR_CONSUMER_NAME_MAX + 2];
    memset(name, 'n', sizeof name);
    name[WEIR_CONSUMER_NAME_MAX + 1] = '\0';
    IS(acquire(&r, 1, name, 0, "x").st, WEIR_INVALID);
    IS(acquire(&r, 1, "a", 0, name).st, WEIR_INVALID);
    IS(acquire(&r, 1, "", 0, "x").st, WEIR_INVALID);
    IS(acquire(&r, 1, "a/b", 0, "x").st, WEIR_INVALID);
    IS(set(&r, 1, "a b", 0, 0, 1).st, WEIR_INVALID);
    IS(reset(&r, 1, "").st, WEIR_INVALID);
    cr_expect(eq(sz, find(&r.table, "lease/").count, 0));
    name[WEIR_CONSUMER_NAME_MAX] = '\0';
    OK(acquire(&r, UINT64_MAX, name, UINT32_MAX, name).st);
    rig_reopen(&r);
    cr_expect(strcmp(row(&r, UINT64_MAX, name, UINT32_MAX)->owner, name) == 0);
    cr_expect(row(&r, 1, "a/b", 0) == NULL);
    rig_fini(&r);
}

struct walk {
    char text[256];
};

static void
walk_row(void *arg, const struct weir_checkpoint_row *row)
{
    struct walk *w = arg;
    size_t len = strlen(w->text);
    snprintf(w->text + len, sizeof w->text - len, "%s/%u ", row->consumer, row->shard);
}

/* Rows are walked by consumer, then shard, as names and numbers. */
Test(lease, walks_in_order)
{
    struct rig r;
    rig_init(&r);
    OK(set(&r, 1, "a-b", 2, 0, 1).st);
    OK(set(&r, 1, "a", 10, 0, 1).st);
    OK(set(&r, 1, "b", 0, 0, 1).st);
    OK(set(&r, 1, "a", 9, 0, 1).st);
    OK(set(&r, 2, "z", 9, 0, 1).st);
    struct walk w = {0};
    weir_lease_each(r.leases, 1, NULL, walk_row, &w);
    cr_expect(strcmp(w.text, "a/9 a/10 a-b/2 b/0 ") == 0, "%s", w.text);
    OK(set(&r, 1, "a", 1, 0, 1).st);
    struct weir_bytes a = text("a");
    w = (struct walk){0};
    weir_lease_each(r.leases, 1, &a, walk_row, &w);
    cr_expect(strcmp(w.text, "a/1 a/9 a/10 ") == 0, "%s", w.text);
    w = (struct walk){0};
    weir_lease_each(r.leases, 3, NULL, walk_row, &w);
    cr_expect(strcmp(w.text, "") == 0);
    rig_fini(&r);
}

/* A commit that fails leaves rows as they were, and the next one works. */
Test(lease, goes_on_after_a_full_disk)
{
    struct rig r;
    rig_init(&r);
    OK(acquire(&r, 1, "mail", 0, "one").st);
    OK(set(&r, 1, "mail", 0, 1, 5).st);
    weir_memfs_fail_nth(r.table.disk, WEIR_MEMFS_WRITE, 1, WEIR_NO_SPACE, true);
    struct answer a = set(&r, 1, "mail", 0, 1, 6);
    IS(a.st, WEIR_NO_SPACE);
    cr_expect(eq(u64, a.change.row.offset, 5));
    a = acquire(&r, 1, "new", 0, "one");
    IS(a.st, WEIR_NO_SPACE);
    cr_expect(eq(u64, a.change.row.epoch, 0));
    IS(reset(&r, 1, "mail").st, WEIR_NO_SPACE);
    IS(drop(&r, 1).st, WEIR_NO_SPACE);
    cr_expect(eq(u64, row(&r, 1, "mail", 0)->offset, 5));
    cr_expect(row(&r, 1, "new", 0) == NULL);
    weir_memfs_fail_clear(r.table.disk);
    OK(set(&r, 1, "mail", 0, 1, 7).st);
    a = acquire(&r, 1, "new", 0, "one");
    OK(a.st);
    cr_expect(eq(u64, a.change.row.epoch, 1));
    rig_reopen(&r);
    cr_expect(eq(u64, row(&r, 1, "mail", 0)->offset, 7));
    rig_fini(&r);
}

/* The power goes at each sync: what was answered OK is there, a position never goes back behind it,
 * and an epoch that was given out is never given out again. */
Test(lease, survives_a_cut_at_every_sync)
{
    for (unsigned long n = 1;; n++) {
        struct rig r;
        rig_init(&r);
        weir_memfs_fail_nth(r.table.disk, WEIR_MEMFS_SYNC, n, WEIR_IO, true);
        uint64_t epoch = 0, offset = 0, tried = 0;
        bool failed = false;
        for (int i = 0; i < 6 && !failed; i++) {
            struct answer a = acquire(&r, 1, "mail", 0, "x");
            failed = a.st != WEIR_OK;
            if (failed)
                break;
            epoch = a.change.row.epoch;
            tried = offset + 10;
            failed = set(&r, 1, "mail", 0, epoch, tried).st != WEIR_OK;
            if (!failed)
                offset = tried;
        }
        for (int keep = WEIR_MEMFS_KEEP_SYNCED; keep <= WEIR_MEMFS_KEEP_SOME; keep++) {
            struct rig after = {0};
            table_init_on(&after.table,
                          weir_memfs_fork(r.table.disk, (enum weir_memfs_cut)keep, n));
            weir_memfs_fail_clear(after.table.disk);
            OK(rig_open(&after));
            const struct weir_checkpoint_row *found = row(&after, 1, "mail", 0);
            cr_assert(epoch == 0 || found != NULL);
            cr_assert(found == NULL || (found->epoch >= epoch && found->epoch <= epoch + 1));
            cr_assert(found == NULL || found->offset == offset || found->offset == tried);
            rig_fini(&after);
        }
        weir_memfs_power_cut(r.table.disk, WEIR_MEMFS_KEEP_SYNCED, n);
        rig_fini(&r);
        if (!failed)
            break;
    }
}

/* A row that is not of the form is damage, named by its key. */
Test(lease, refuses_bad_rows)
{
    static const char *const keys[] = {"lease/1/mail/0", "lease/0000000000000001/ma il/00000000",
                                       "lease/0000000000000001//00000000",
                                       "lease/0000000000000001/mail/0000000g"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct rig r;
        rig_init(&r);
        uint8_t value[32] = {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
        struct noted n;
        begin(&n);
        weir_meta_put(&n.commit, keys[i], weir_bytes(value, sizeof value), 0);
        weir_leases_close(r.leases);
        r.leases = NULL;
        OK(finish_commit(&r.table, &n));
        table_close(&r.table);
        IS(rig_open(&r), WEIR_DAMAGED);
        cr_expect(strstr(r.err.text, keys[i]) != NULL, "%s", r.err.text);
        rig_fini(&r);
    }
}

/* Ten thousand rows are written, found and loaded. */
Test(lease, holds_ten_thousand_rows)
{
    struct rig r;
    rig_init(&r);
    struct answer *a = calloc(10000, sizeof *a);
    for (int round = 1; round <= 3; round++) {
        for (int i = 0; i < 10000; i++) {
            char consumer[16];
            snprintf(consumer, sizeof consumer, "c%d", i % 20);
            begin_answer(&a[i]);
            weir_lease_checkpoint(r.leases, 1, text(consumer), (uint32_t)(i / 20), 0,
                                  (uint64_t)(i * round), false, &a[i].change);
        }
        table_step(&r.table);
        for (int i = 0; i < 10000; i++)
            OK(a[i].st);
    }
    free(a);
    rig_reopen(&r);
    cr_expect(eq(u64, row(&r, 1, "c19", 499)->offset, 9999 * 3));
    cr_expect(eq(u64, row(&r, 1, "c19", 499)->epoch, 3));
    OK(drop(&r, 1).st);
    cr_expect(eq(sz, find(&r.table, "lease/").count, 0));
    rig_fini(&r);
}
