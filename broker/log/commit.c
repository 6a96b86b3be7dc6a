/* One step:
 *
 *   1. Take from `pending` what fits into a group.
 *   2. Open the next segment if it does not fit into this one; the header goes out with the group.
 *   3. Write header, batches, table; sync.
 *   4. Hand all back, in the order of their queueing, the roll's event before them.
 *
 * When 2 or 3 fails, nothing in that segment behind `end` may be believed, today or after a crash.
 * So the next segment is opened first, with a header that says where the old one ends; only when
 * that is durable is "not stored" a true answer. Where it cannot be written the answer is UNKNOWN,
 * and the committer is broken until a retry opens a segment. */
#include "log/commit.h"
#include "base/assert.h"
#include <stdlib.h>

#define ROOM_START 256u

/* Header and table's padding beside the batches. */
#define IOV_EXTRA 3

static enum weir_status
spares(struct weir_commit *c)
{
    if (!c->spare_rolled)
        c->spare_rolled = calloc(1, sizeof *c->spare_rolled);
    if (!c->spare_failed)
        c->spare_failed = calloc(1, sizeof *c->spare_failed);
    return c->spare_rolled && c->spare_failed ? WEIR_OK : WEIR_NO_MEMORY;
}

static enum weir_status
room(struct weir_commit *c, uint32_t count)
{
    if (count <= c->capacity)
        return WEIR_OK;
    uint32_t capacity = c->capacity ? c->capacity : ROOM_START;
    while (capacity < count)
        capacity *= 2;
    struct iovec *iov = realloc(c->iov, (capacity + IOV_EXTRA) * sizeof *iov);
    if (!iov)
        return WEIR_NO_MEMORY;
    c->iov = iov;
    /* The padding behind the table is part of it here. */
    struct weir_disk_row *rows = realloc(c->rows, capacity * sizeof *rows + WEIR_DISK_BLOCK);
    if (!rows)
        return WEIR_NO_MEMORY;
    c->rows = rows;
    c->capacity = capacity;
    return WEIR_OK;
}

enum weir_status
weir_commit_init(struct weir_commit *c)
{
    pthread_mutex_init(&c->mtx, NULL);
    pthread_cond_init(&c->work, NULL);
    weir_list_init(&c->pending);
    weir_list_init(&c->finished);
    enum weir_status st = room(c, ROOM_START);
    return st ? st : spares(c);
}

void
weir_commit_fini(struct weir_commit *c)
{
    WEIR_ASSERT(weir_list_is_empty(&c->pending) && weir_list_is_empty(&c->finished));
    free(c->iov);
    free(c->rows);
    free(c->spare_rolled);
    free(c->spare_failed);
    pthread_cond_destroy(&c->work);
    pthread_mutex_destroy(&c->mtx);
}

static struct weir_append *
item_of(struct weir_list *node)
{
    return WEIR_CONTAINER(node, struct weir_append, node);
}

static bool
has_bytes(const struct weir_append *a)
{
    return a->kind <= WEIR_ITEM_COPY;
}

/* ---- writing ---- */

static enum weir_status
append(struct weir_commit *c, struct weir_position at, int count, bool sync)
{
    uint64_t before = weir_mono_us(c->clock);
    enum weir_status st = c->journal->ops->append(c->journal, at, c->iov, count, sync);
    if (sync) {
        atomic_fetch_add_explicit(&c->syncs, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&c->sync_us, weir_mono_us(c->clock) - before,
                                  memory_order_relaxed);
    }
    return st;
}

static void
make_header(const struct weir_commit *c, uint32_t segment, uint64_t previous_end,
            struct weir_disk_segment *out)
{
    struct weir_segment_info info = {
        .journal = c->journal_number,
        .epoch = c->epoch,
        .journal_id = c->journal_id,
        .previous_hash = c->last_hash,
        .segment = segment,
        .created_ms = weir_now_ms(c->clock),
        .previous_end = previous_end,
        .group = c->group + 1,
    };
    weir_segment_encode(&info, out);
}

/* Ends the present segment where it is: the next one's header, which is durable, says so. */
static struct weir_rolled *
rolled(struct weir_commit *c)
{
    struct weir_rolled *r = c->spare_rolled;
    c->spare_rolled = NULL;
    *r = (struct weir_rolled){
        .item.kind = WEIR_ITEM_ROLLED,
        .segment = c->segment,
        .next = c->segment + 1,
        .end = c->end,
        .group = c->group,
        .last_hash = c->last_hash,
        .epoch = c->epoch,
    };
    return r;
}

enum weir_status
weir_commit_open_next(struct weir_commit *c)
{
    enum weir_status st = spares(c);
    if (!st)
        st = c->journal->ops->roll(c->journal, c->segment + 1);
    if (st)
        return st;
    struct weir_disk_segment header;
    make_header(c, c->segment + 1, c->end, &header);
    c->iov[0] = (struct iovec){&header, sizeof header};
    st = append(c, (struct weir_position){c->segment + 1, 0}, 1, true);
    if (st)
        return st;
    if (c->segment) {
        struct weir_rolled *r = rolled(c);
        pthread_mutex_lock(&c->mtx);
        weir_list_push_back(&c->finished, &r->item.node);
        pthread_mutex_unlock(&c->mtx);
    }
    c->segment++;
    c->end = c->synced = WEIR_DISK_BLOCK;
    return WEIR_OK;
}

/* Fills iov from `at` on with the group; returns its end there. */
static int
make_group(struct weir_commit *c, struct weir_list *items, uint32_t count, uint64_t bytes, int at,
           struct weir_group_info *info, struct weir_disk_group *head)
{
    c->iov[at++] = (struct iovec){head, sizeof *head};
    uint64_t position = info->position + sizeof *head;
    uint32_t n = 0;
    if (items) {
        WEIR_LIST_FOR_EACH (node, items) {
            struct weir_append *a = item_of(node);
            if (!has_bytes(a))
                continue;
            a->segment = info->segment;
            a->position = (uint32_t)position;
            position += a->size;
            c->iov[at++] = (struct iovec){a->batch->data, a->size};
            weir_row_encode(
                &(struct weir_row_info){a->shard, a->offset, a->size, a->count, a->hash},
                &c->rows[n++]);
        }
    }
    WEIR_ASSERT(n == count);
    size_t table = count * sizeof *c->rows;
    info->length = (uint32_t)(sizeof *head + bytes + table);
    info->count = count;
    info->table_hash = weir_disk_hash(c->rows, table);
    size_t padding = weir_group_disk_bytes(info->length) - info->length;
    memset((uint8_t *)c->rows + table, 0, padding);
    if (table + padding)
        c->iov[at++] = (struct iovec){c->rows, table + padding};
    weir_group_encode(info, head);
    return at;
}

/* Writes the items as one group; *rolled_out is the event of a segment that ended on the way. */
static enum weir_status
write_group(struct weir_commit *c, struct weir_list *items, uint32_t count, uint64_t bytes,
            uint32_t flags, struct weir_rolled **rolled_out)
{
    enum weir_status st = room(c, count);
    if (!st)
        st = spares(c);
    if (st)
        return st;

    uint64_t disk = weir_group_disk_bytes(
        (uint32_t)(sizeof(struct weir_disk_group) + bytes + count * sizeof *c->rows));
    bool roll = c->end > WEIR_DISK_BLOCK && c->end + disk > c->segment_bytes;
    uint32_t segment = c->segment + roll;
    uint64_t position = roll ? WEIR_DISK_BLOCK : c->end;
    struct weir_disk_segment header;
    int n = 0;
    if (roll) {
        /* The old segment's end is about to be declared; so it must be durable. */
        if (c->synced < c->end)
            st = c->journal->ops->sync(c->journal);
        if (!st)
            c->synced = c->end;
        if (!st)
            st = c->journal->ops->roll(c->journal, segment);
        if (st)
            return st;
        make_header(c, segment, c->end, &header);
        c->iov[n++] = (struct iovec){&header, sizeof header};
    }
    struct weir_group_info info = {
        .journal_id = c->journal_id,
        .previous = c->last_hash,
        .segment = segment,
        .position = position,
        .synced = roll ? WEIR_DISK_BLOCK : c->synced,
        .number = c->group + 1,
        .epoch = c->epoch,
        .flags = flags,
    };
    struct weir_disk_group head;
    n = make_group(c, items, count, bytes, n, &info, &head);
    /* A new segment's name and header are worth a sync in any case. */
    bool sync = c->sync || roll || flags;
    st = append(c, (struct weir_position){segment, roll ? 0 : position}, n, sync);
    if (st)
        return st;

    if (roll) {
        *rolled_out = rolled(c);
        c->segment = segment;
    }
    c->end = position + disk;
    if (sync)
        c->synced = c->end;
    c->group++;
    c->last_hash = info.header_hash;
    atomic_fetch_add_explicit(&c->groups, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->group_bytes, disk, memory_order_relaxed);
    return WEIR_OK;
}

enum weir_status
weir_commit_mark(struct weir_commit *c, uint32_t flags)
{
    struct weir_rolled *r = NULL;
    bool sync = c->sync;
    c->sync = true;
    enum weir_status st = write_group(c, NULL, 0, 0, flags, &r);
    c->sync = sync;
    if (r) {
        pthread_mutex_lock(&c->mtx);
        weir_list_push_back(&c->finished, &r->item.node);
        pthread_mutex_unlock(&c->mtx);
    }
    return st;
}

/* ---- a step ---- */

/* Takes from pending what fits into one group, markers on the way. Under the lock. */
static void
take(struct weir_commit *c, struct weir_list *items, uint32_t *count, uint64_t *bytes, bool *sync,
     bool *roll)
{
    *count = 0;
    *bytes = 0;
    *sync = *roll = false;
    while (!weir_list_is_empty(&c->pending)) {
        struct weir_append *a = item_of(c->pending.next);
        if (has_bytes(a)) {
            if (*count &&
                (*bytes + a->size > c->group_bytes_max || *count == WEIR_GROUP_BATCHES_MAX))
                break;
            *bytes += a->size;
            ++*count;
        }
        *sync |= a->kind == WEIR_ITEM_BARRIER || a->kind == WEIR_ITEM_ROLL;
        *roll = a->kind == WEIR_ITEM_ROLL;
        weir_list_remove(&a->node);
        weir_list_push_back(items, &a->node);
        if (*roll)
            break;
    }
}

static void
splice(struct weir_list *from, struct weir_list *to)
{
    struct weir_list *node;
    while ((node = weir_list_pop_front(from)))
        weir_list_push_back(to, node);
}

/* Hands back; under the lock. */
static void
hand_back(struct weir_commit *c, struct weir_list *items)
{
    splice(items, &c->finished);
    weir_loop_post(c->loop, c->task);
}

/* `st` went wrong with the group of `items`. */
static void
fail(struct weir_commit *c, struct weir_list *items, enum weir_status st)
{
    atomic_fetch_add_explicit(&c->failed_groups, 1, memory_order_relaxed);
    struct weir_failed *f = c->spare_failed;
    c->spare_failed = NULL;
    enum weir_status now = weir_commit_open_next(c);
    if (!f)
        f = calloc(1, sizeof *f);
    WEIR_ASSERT(f);
    enum weir_status answer = st == WEIR_NO_SPACE ? st : WEIR_IO;
    WEIR_LIST_FOR_EACH (node, items) {
        item_of(node)->st = now ? WEIR_UNKNOWN : answer;
    }
    *f = (struct weir_failed){
        .item.kind = WEIR_ITEM_FAILED,
        .item.st = answer,
        .now = now ? now == WEIR_NO_SPACE ? now : WEIR_IO : WEIR_OK,
    };
    weir_list_push_back(items, &f->item.node);
    pthread_mutex_lock(&c->mtx);
    c->broken = true;
    hand_back(c, items);
    pthread_mutex_unlock(&c->mtx);
}

static void
retry(struct weir_commit *c)
{
    enum weir_status st = weir_commit_open_next(c);
    pthread_mutex_lock(&c->mtx);
    c->retry = false;
    c->mended.kind = WEIR_ITEM_MENDED;
    c->mended.st = st;
    weir_list_push_back(&c->finished, &c->mended.node);
    weir_loop_post(c->loop, c->task);
    pthread_mutex_unlock(&c->mtx);
}

/* One group; false: there was nothing to do. */
static bool
step(struct weir_commit *c)
{
    struct weir_list items;
    uint32_t count;
    uint64_t bytes;
    bool barrier, roll;
    weir_list_init(&items);
    pthread_mutex_lock(&c->mtx);
    bool again = c->retry;
    bool idle = !again && (c->broken || weir_list_is_empty(&c->pending));
    if (!again && !idle)
        take(c, &items, &count, &bytes, &barrier, &roll);
    pthread_mutex_unlock(&c->mtx);
    if (idle)
        return false;
    if (again) {
        retry(c);
        return true;
    }

    struct weir_rolled *r = NULL;
    enum weir_status st = WEIR_OK;
    uint64_t end = c->end, group = c->group;
    weir_u128 last_hash = c->last_hash;
    if (count)
        st = write_group(c, &items, count, bytes, 0, &r);
    if (!st && barrier && c->synced < c->end) {
        st = c->journal->ops->sync(c->journal);
        atomic_fetch_add_explicit(&c->syncs, 1, memory_order_relaxed);
        if (!st) {
            c->synced = c->end;
        } else {
            /* This group was written, but fails all the same: the segment ends before it. */
            WEIR_ASSERT(!r);
            c->end = end;
            c->group = group;
            c->last_hash = last_hash;
        }
    }
    if (r)
        weir_list_push_front(&items, &r->item.node);
    if (st) {
        fail(c, &items, st);
        return true;
    }
    pthread_mutex_lock(&c->mtx);
    hand_back(c, &items);
    pthread_mutex_unlock(&c->mtx);
    if (roll && c->end > WEIR_DISK_BLOCK && weir_commit_open_next(c))
        fail(c, &items, WEIR_IO);
    return true;
}

static void
thread_main(void *arg)
{
    struct weir_commit *c = arg;
    for (;;) {
        if (step(c))
            continue;
        pthread_mutex_lock(&c->mtx);
        while (!c->stop && !c->retry && (c->broken || weir_list_is_empty(&c->pending))) {
            c->asleep = true;
            pthread_cond_wait(&c->work, &c->mtx);
            c->asleep = false;
        }
        bool stop = c->stop;
        pthread_mutex_unlock(&c->mtx);
        if (stop)
            return;
    }
}

/* ---- owner ---- */

static void
job_work(struct weir_job *job)
{
    step(WEIR_CONTAINER(job, struct weir_commit, job));
}

/* Lets the committer look. */
static void
wake(struct weir_commit *c)
{
    if (c->thread || c->job_active || !c->job.work)
        return;
    c->job_active = true;
    weir_pool_submit(c->pool, c->loop, &c->job);
}

static void
job_done(struct weir_job *job)
{
    struct weir_commit *c = WEIR_CONTAINER(job, struct weir_commit, job);
    c->job_active = false;
    pthread_mutex_lock(&c->mtx);
    bool more = c->retry || (!c->broken && !weir_list_is_empty(&c->pending));
    pthread_mutex_unlock(&c->mtx);
    if (more && !c->stop)
        wake(c);
}

enum weir_status
weir_commit_start(struct weir_commit *c, bool threads)
{
    if (threads)
        return weir_thread_start("weir-commit", thread_main, c, &c->thread);
    c->job = (struct weir_job){.work = job_work, .done = job_done};
    return WEIR_OK;
}

void
weir_commit_stop(struct weir_commit *c)
{
    pthread_mutex_lock(&c->mtx);
    c->stop = true;
    pthread_cond_signal(&c->work);
    pthread_mutex_unlock(&c->mtx);
    weir_thread_join(c->thread);
    c->thread = NULL;
}

void
weir_commit_push(struct weir_commit *c, struct weir_append *item)
{
    pthread_mutex_lock(&c->mtx);
    weir_list_push_back(&c->pending, &item->node);
    bool asleep = c->asleep;
    pthread_mutex_unlock(&c->mtx);
    if (asleep)
        pthread_cond_signal(&c->work);
    wake(c);
}

void
weir_commit_pass(struct weir_commit *c, struct weir_append *item)
{
    pthread_mutex_lock(&c->mtx);
    weir_list_push_back(&c->finished, &item->node);
    pthread_mutex_unlock(&c->mtx);
    weir_loop_post(c->loop, c->task);
}

void
weir_commit_take_finished(struct weir_commit *c, struct weir_list *out)
{
    pthread_mutex_lock(&c->mtx);
    splice(&c->finished, out);
    pthread_mutex_unlock(&c->mtx);
}

void
weir_commit_take_pending(struct weir_commit *c, struct weir_list *out)
{
    pthread_mutex_lock(&c->mtx);
    splice(&c->pending, out);
    pthread_mutex_unlock(&c->mtx);
}

void
weir_commit_mend(struct weir_commit *c)
{
    pthread_mutex_lock(&c->mtx);
    c->broken = false;
    pthread_cond_signal(&c->work);
    pthread_mutex_unlock(&c->mtx);
    wake(c);
}

void
weir_commit_retry(struct weir_commit *c)
{
    pthread_mutex_lock(&c->mtx);
    c->retry = true;
    pthread_cond_signal(&c->work);
    pthread_mutex_unlock(&c->mtx);
    wake(c);
}
