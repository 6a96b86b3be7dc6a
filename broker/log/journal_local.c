/* The local journal: one file per segment.
 *
 *     00000007.seg   written by the committer, zeros ahead of it
 *     00000008.seg   prepared: zeros, or old contents of a recycled file
 *     00000003.spare trimmed, waits to be a prepared one
 *     footers        the log's notes
 *
 * Pages that were written before cost half as much to sync as fresh ones, so a filler (prepare())
 * runs ahead of the committer: it extends the file in use, then makes the next ones. It starts
 * small and keeps ahead of twice what was written, up to `prewrite_bytes`, so that a broker that
 * does little writes little. If the committer is faster, it writes into the growing file.
 *
 * The filler writes zeros; it must never do so where the committer writes. Both name the range they
 * are at under the lock: the filler starts behind everything that the committer began, and the
 * committer waits where the filler is at work. The filler syncs through a descriptor of its own: an
 * error of the disk is told once to each descriptor, and the committer must not miss its own.
 *
 * A recycled file's name changes before its contents do, and durably: else a crash could bring new
 * contents back under an old number. */
#include "base/assert.h"
#include "base/checked.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/map.h"
#include "log/journal.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define FILL_BYTES (1 * WEIR_MIB)
#define FILL_START_BYTES (4 * WEIR_MIB)
#define ZEROS_BYTES (64 * WEIR_KIB)
#define HANDLES_MAX 64
#define PREPARED_MAX 17
#define PATH_MAX_BYTES 320

static const uint8_t zeros[ZEROS_BYTES];

/* An open file; in the map while its segment exists. */
struct handle {
    struct weir_list node; /* least recently used first */
    uint64_t segment;
    struct weir_file *file;
    unsigned refs; /* users at work */
    bool gone;     /* trimmed: close when the last user leaves */
};

struct prepared {
    uint64_t segment;
    uint64_t filled;
    bool ready; /* its name is durable */
};

struct local {
    struct weir_journal journal;
    struct weir_fs *fs;
    char directory[256];
    uint64_t segment_bytes, prewrite_bytes;

    pthread_mutex_t mtx;
    pthread_cond_t filler_moved;
    /* shared, under mtx */
    struct weir_map handles;
    struct weir_list used;
    size_t handle_count;
    struct handle *active;                     /* holds a reference */
    uint64_t segment;                          /* active's number */
    uint64_t begun;                            /* end of what the committer wrote or is writing */
    uint64_t filled;                           /* bytes of the active file that exist on disk */
    uint64_t written;                          /* by appends in this life */
    uint64_t fill_segment, fill_from, fill_to; /* where the filler is at work */
    struct prepared prepared[PREPARED_MAX];
    unsigned prepared_count;
    uint64_t spares[PREPARED_MAX];
    unsigned spare_count;
    uint64_t made; /* grows when a segment's name gets another file */
    uint32_t epoch;

    /* the filler's */
    struct weir_file *fill_file;
    uint64_t fill_file_segment, fill_file_made;

    uint64_t notes_bytes; /* whoever writes notes */
};

static struct local *
local_of(struct weir_journal *j)
{
    return WEIR_CONTAINER(j, struct local, journal);
}

static void
segment_path(const struct local *l, uint64_t segment, const char *ending, char out[PATH_MAX_BYTES])
{
    snprintf(out, PATH_MAX_BYTES, "%s/%08llu.%s", l->directory, (unsigned long long)segment,
             ending);
}

/* ---- handles ---- */

static void
handle_free(struct handle *h)
{
    weir_file_close(h->file);
    free(h);
}

/* Closes the least recently used files that nobody uses. Under the lock. */
static void
handles_shrink(struct local *l)
{
    WEIR_LIST_FOR_EACH_SAFE (node, &l->used) {
        if (l->handle_count <= HANDLES_MAX)
            return;
        struct handle *h = WEIR_CONTAINER(node, struct handle, node);
        if (h->refs)
            continue;
        weir_list_remove(&h->node);
        (void)weir_map_take(&l->handles, h->segment);
        l->handle_count--;
        handle_free(h);
    }
}

/* Under the lock. `flags`: WEIR_OPEN_…. */
static enum weir_status
handle_get_locked(struct local *l, uint64_t segment, int flags, struct handle **out)
{
    struct handle *h = weir_map_get(&l->handles, segment);
    if (h) {
        weir_list_remove(&h->node);
        weir_list_push_back(&l->used, &h->node);
        h->refs++;
        *out = h;
        return WEIR_OK;
    }
    char path[PATH_MAX_BYTES];
    segment_path(l, segment, "seg", path);
    h = calloc(1, sizeof *h);
    if (!h)
        return WEIR_NO_MEMORY;
    enum weir_status st = weir_fs_open(l->fs, path, WEIR_OPEN_WRITE | flags, &h->file);
    if (!st)
        st = weir_map_put(&l->handles, segment, h);
    if (st) {
        handle_free(h);
        return st;
    }
    h->segment = segment;
    h->refs = 1;
    weir_list_push_back(&l->used, &h->node);
    l->handle_count++;
    handles_shrink(l);
    *out = h;
    return WEIR_OK;
}

static enum weir_status
handle_get(struct local *l, uint64_t segment, struct handle **out)
{
    pthread_mutex_lock(&l->mtx);
    enum weir_status st = handle_get_locked(l, segment, 0, out);
    pthread_mutex_unlock(&l->mtx);
    return st;
}

/* Under the lock. NULL is allowed. */
static void
handle_put_locked(struct handle *h)
{
    if (h && --h->refs == 0 && h->gone)
        handle_free(h);
}

static void
handle_put(struct local *l, struct handle *h)
{
    pthread_mutex_lock(&l->mtx);
    handle_put_locked(h);
    pthread_mutex_unlock(&l->mtx);
}

/* The segment's file is about to go: nobody gets it any more. Under the lock. */
static void
handle_forget(struct local *l, uint64_t segment)
{
    struct handle *h = weir_map_take(&l->handles, segment);
    if (!h)
        return;
    weir_list_remove(&h->node);
    l->handle_count--;
    h->gone = true;
    h->refs++;
    handle_put_locked(h);
}

/* ---- names ---- */

struct listing {
    struct local *l;
    uint64_t *numbers;
    size_t count, capacity;
    enum weir_status st;
};

/* "00000012.seg": at least eight digits. */
static bool
parse_name(const char *name, const char *ending, uint64_t *out)
{
    uint64_t number = 0;
    size_t digits = 0;
    for (; name[digits] >= '0' && name[digits] <= '9'; digits++)
        if (!weir_mul_u64(number, 10, &number) ||
            !weir_add_u64(number, (uint64_t)(name[digits] - '0'), &number))
            return false;
    if (digits < 8 || name[digits] != '.' || strcmp(name + digits + 1, ending) != 0 || !number)
        return false;
    *out = number;
    return true;
}

static void
list_entry(void *arg, const struct weir_fs_entry *entry)
{
    struct listing *list = arg;
    struct local *l = list->l;
    uint64_t number;
    if (entry->is_directory)
        return;
    if (parse_name(entry->name, "spare", &number)) {
        if (l->spare_count < PREPARED_MAX)
            l->spares[l->spare_count++] = number;
        return;
    }
    if (!parse_name(entry->name, "seg", &number))
        return;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        uint64_t *grown = realloc(list->numbers, capacity * sizeof *grown);
        if (!grown) {
            list->st = WEIR_NO_MEMORY;
            return;
        }
        list->numbers = grown;
        list->capacity = capacity;
    }
    list->numbers[list->count++] = number;
}

static int
number_order(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static enum weir_status
segment_size(struct local *l, uint64_t segment, uint64_t *out)
{
    struct handle *h;
    enum weir_status st = handle_get(l, segment, &h);
    if (st)
        return st;
    st = weir_file_size(h->file, out);
    handle_put(l, h);
    return st;
}

static enum weir_status
numbers_of(struct local *l, struct listing *list)
{
    pthread_mutex_lock(&l->mtx);
    l->spare_count = 0;
    enum weir_status st = weir_fs_list(l->fs, l->directory, list_entry, list);
    pthread_mutex_unlock(&l->mtx);
    if (!st)
        st = list->st;
    if (!st && list->count)
        qsort(list->numbers, list->count, sizeof *list->numbers, number_order);
    return st;
}

static enum weir_status
local_list(struct weir_journal *j, enum weir_status (*each)(void *arg, uint64_t segment), void *arg)
{
    struct listing list = {.l = local_of(j)};
    enum weir_status st = numbers_of(list.l, &list);
    for (size_t i = 0; i < list.count && !st; i++)
        st = each(arg, list.numbers[i]);
    free(list.numbers);
    return st;
}

static enum weir_status
local_size(struct weir_journal *j, uint64_t segment, uint64_t *bytes_out)
{
    return segment_size(local_of(j), segment, bytes_out);
}

/* ---- the writer ---- */

static void
local_caps(struct weir_journal *j, struct weir_journal_caps *out)
{
    *out = (struct weir_journal_caps){
        .segment_bytes_max = local_of(j)->segment_bytes,
        .group_bytes_max = WEIR_GIB,
        .alignment = 512,
        .fences = false,
    };
}

/* The directory's lock keeps other writers out; within the process the epoch is kept for show. */
static enum weir_status
local_fence(struct weir_journal *j, uint32_t epoch)
{
    struct local *l = local_of(j);
    if (epoch < l->epoch)
        return WEIR_FENCED;
    l->epoch = epoch;
    return WEIR_OK;
}

/* Under the lock; takes over the reference. */
static void
activate(struct local *l, struct handle *h, uint64_t begun, uint64_t filled)
{
    handle_put_locked(l->active);
    l->active = h;
    l->segment = h->segment;
    l->begun = begun;
    l->filled = filled;
}

static enum weir_status
local_resume(struct weir_journal *j, struct weir_position at)
{
    struct local *l = local_of(j);
    struct listing list = {.l = l};
    struct handle *h;
    uint64_t size;
    enum weir_status st = handle_get(l, at.segment, &h);
    if (st)
        return st;
    st = weir_file_size(h->file, &size);
    if (!st)
        st = numbers_of(l, &list);
    if (st) {
        handle_put(l, h);
        goto done;
    }
    pthread_mutex_lock(&l->mtx);
    activate(l, h, at.byte, size);
    l->prepared_count = 0;
    pthread_mutex_unlock(&l->mtx);

    /* Prepared files follow without a hole; anything else there is of no use. */
    uint64_t expected = at.segment + 1;
    for (size_t i = 0; i < list.count && !st; i++) {
        uint64_t number = list.numbers[i];
        if (number <= at.segment)
            continue;
        if (number == expected && l->prepared_count < PREPARED_MAX) {
            st = segment_size(l, number, &size);
            if (!st)
                l->prepared[l->prepared_count++] = (struct prepared){number, size, true};
            expected++;
            continue;
        }
        char path[PATH_MAX_BYTES];
        segment_path(l, number, "seg", path);
        pthread_mutex_lock(&l->mtx);
        handle_forget(l, number);
        pthread_mutex_unlock(&l->mtx);
        st = weir_fs_remove(l->fs, path);
    }
    /* A name seen here may not be durable yet. */
    if (!st)
        st = weir_fs_sync_directory(l->fs, l->directory);
done:
    free(list.numbers);
    return st;
}

/* Makes the file new, whatever an earlier try left. Under the lock. */
static enum weir_status
create_locked(struct local *l, uint64_t segment, struct handle **out)
{
    char path[PATH_MAX_BYTES];
    segment_path(l, segment, "seg", path);
    if (l->active && l->segment == segment) {
        handle_put_locked(l->active);
        l->active = NULL;
    }
    handle_forget(l, segment);
    l->made++;
    enum weir_status st = weir_fs_remove(l->fs, path);
    if (st && st != WEIR_NOT_FOUND)
        return st;
    if (!st) {
        st = weir_fs_sync_directory(l->fs, l->directory);
        if (st)
            return st;
    }
    struct handle *h;
    st = handle_get_locked(l, segment, WEIR_OPEN_CREATE, &h);
    if (st)
        return st;
    st = weir_fs_sync_directory(l->fs, l->directory);
    if (st) {
        handle_put_locked(h);
        return st;
    }
    *out = h;
    return WEIR_OK;
}

static enum weir_status
local_roll(struct weir_journal *j, uint64_t segment)
{
    struct local *l = local_of(j);
    struct handle *h;
    uint64_t filled = 0;
    enum weir_status st;
    pthread_mutex_lock(&l->mtx);
    /* A file that the filler is just making or renaming becomes ready or is given up soon. */
    while (l->prepared_count && l->prepared[0].segment == segment && !l->prepared[0].ready &&
           l->fill_segment == segment)
        pthread_cond_wait(&l->filler_moved, &l->mtx);
    if (l->prepared_count && l->prepared[0].segment == segment && l->prepared[0].ready) {
        filled = l->prepared[0].filled;
        l->prepared_count--;
        memmove(l->prepared, l->prepared + 1, l->prepared_count * sizeof *l->prepared);
        st = handle_get_locked(l, segment, 0, &h);
    } else {
        while (l->fill_segment == segment)
            pthread_cond_wait(&l->filler_moved, &l->mtx);
        l->prepared_count = 0;
        st = create_locked(l, segment, &h);
    }
    if (!st)
        activate(l, h, 0, filled);
    pthread_mutex_unlock(&l->mtx);
    return st;
}

static enum weir_status
local_append(struct weir_journal *j, struct weir_position at, const struct iovec *iov, int count,
             bool sync)
{
    struct local *l = local_of(j);
    uint64_t len = 0;
    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;

    pthread_mutex_lock(&l->mtx);
    WEIR_ASSERT(l->active && at.segment == l->segment);
    if (at.byte + len > l->begun)
        l->begun = at.byte + len;
    while (l->fill_segment == at.segment && l->fill_from < at.byte + len && at.byte < l->fill_to)
        pthread_cond_wait(&l->filler_moved, &l->mtx);
    struct weir_file *file = l->active->file;
    pthread_mutex_unlock(&l->mtx);

    enum weir_status st = weir_file_pwritev(file, iov, count, at.byte);
    if (!st && sync)
        st = weir_file_datasync(file);
    if (st)
        return st;

    pthread_mutex_lock(&l->mtx);
    l->written += len;
    if (l->filled < at.byte + len)
        l->filled = at.byte + len;
    pthread_mutex_unlock(&l->mtx);
    return WEIR_OK;
}

static enum weir_status
local_sync(struct weir_journal *j)
{
    return weir_file_datasync(local_of(j)->active->file);
}

/* ---- reading, sealing, trimming ---- */

static enum weir_status
local_read(struct weir_journal *j, struct weir_position at, void *buf, size_t len, size_t *read_out)
{
    struct local *l = local_of(j);
    struct handle *h;
    enum weir_status st = handle_get(l, at.segment, &h);
    if (st)
        return st;
    st = weir_file_pread(h->file, buf, len, at.byte, read_out);
    handle_put(l, h);
    return st;
}

static void
local_advise(struct weir_journal *j, struct weir_position at, uint64_t len)
{
    struct local *l = local_of(j);
    struct handle *h;
    if (handle_get(l, at.segment, &h))
        return;
    weir_file_advise(h->file, at.byte, len, POSIX_FADV_WILLNEED);
    handle_put(l, h);
}

static enum weir_status
local_seal(struct weir_journal *j, struct weir_position end, const struct iovec *iov, int count)
{
    struct local *l = local_of(j);
    struct handle *h;
    uint64_t len = 0;
    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;

    enum weir_status st = handle_get(l, end.segment, &h);
    if (st)
        return st;
    pthread_mutex_lock(&l->mtx);
    WEIR_ASSERT(l->segment > end.segment);
    while (l->fill_segment == end.segment)
        pthread_cond_wait(&l->filler_moved, &l->mtx);
    pthread_mutex_unlock(&l->mtx);

    uint64_t last = end.byte + len - iov[count - 1].iov_len;
    st = weir_file_pwritev(h->file, iov, count - 1, end.byte);
    if (!st)
        st = weir_file_truncate(h->file, last);
    if (!st)
        st = weir_file_datasync(h->file);
    if (!st)
        st = weir_file_pwritev(h->file, &iov[count - 1], 1, last);
    if (!st)
        st = weir_file_datasync(h->file);
    handle_put(l, h);
    return st;
}

/* Files worth keeping: what the filler will want before more are trimmed. Trims come in bursts, so
 * those that are prepared already do not count. Under the lock. */
static bool
wants_spare(const struct local *l)
{
    uint64_t files = l->prewrite_bytes / l->segment_bytes + 1;
    return l->prewrite_bytes && l->spare_count < files && l->spare_count < PREPARED_MAX;
}

static enum weir_status
local_trim(struct weir_journal *j, uint64_t segment)
{
    struct local *l = local_of(j);
    char path[PATH_MAX_BYTES], spare[PATH_MAX_BYTES];
    segment_path(l, segment, "seg", path);
    segment_path(l, segment, "spare", spare);
    pthread_mutex_lock(&l->mtx);
    WEIR_ASSERT(segment < l->segment);
    handle_forget(l, segment);
    enum weir_status st;
    if (wants_spare(l)) {
        st = weir_fs_rename(l->fs, path, spare);
        if (!st)
            l->spares[l->spare_count++] = segment;
    } else {
        st = weir_fs_remove(l->fs, path);
    }
    pthread_mutex_unlock(&l->mtx);
    if (!st)
        st = weir_fs_sync_directory(l->fs, l->directory);
    return st;
}

/* ---- notes ---- */

static void
notes_path(const struct local *l, const char *ending, char out[PATH_MAX_BYTES])
{
    snprintf(out, PATH_MAX_BYTES, "%s/footers%s", l->directory, ending);
}

static enum weir_status
local_notes_read(struct weir_journal *j, uint8_t **bytes_out, size_t *len_out)
{
    struct local *l = local_of(j);
    struct weir_file *file = NULL;
    uint8_t *bytes = NULL;
    uint64_t size = 0;
    char path[PATH_MAX_BYTES];
    notes_path(l, "", path);
    enum weir_status st = weir_fs_open(l->fs, path, WEIR_OPEN_READ, &file);
    if (!st)
        st = weir_file_size(file, &size);
    if (st)
        goto done;
    bytes = size < SIZE_MAX / 2 ? malloc(size + 1) : NULL;
    if (!bytes)
        st = WEIR_NO_MEMORY;
    if (!st)
        st = weir_file_pread_all(file, bytes, size, 0);
    if (st)
        goto done;
    l->notes_bytes = size;
    *bytes_out = bytes;
    *len_out = size;
    bytes = NULL;
done:
    weir_file_close(file);
    free(bytes);
    return st;
}

static uint64_t
iov_bytes(const struct iovec *iov, int count)
{
    uint64_t len = 0;
    for (int i = 0; i < count; i++)
        len += iov[i].iov_len;
    return len;
}

static enum weir_status
local_note(struct weir_journal *j, const struct iovec *iov, int count)
{
    struct local *l = local_of(j);
    struct weir_file *file;
    char path[PATH_MAX_BYTES];
    notes_path(l, "", path);
    enum weir_status st = weir_fs_open(l->fs, path, WEIR_OPEN_WRITE | WEIR_OPEN_CREATE, &file);
    if (st)
        return st;
    st = weir_file_pwritev(file, iov, count, l->notes_bytes);
    if (!st)
        l->notes_bytes += iov_bytes(iov, count);
    weir_file_close(file);
    return st;
}

static enum weir_status
local_notes_replace(struct weir_journal *j, const struct iovec *iov, int count)
{
    struct local *l = local_of(j);
    struct weir_file *file;
    char path[PATH_MAX_BYTES], other[PATH_MAX_BYTES];
    notes_path(l, "", path);
    notes_path(l, ".new", other);
    enum weir_status st =
        weir_fs_open(l->fs, other, WEIR_OPEN_WRITE | WEIR_OPEN_CREATE | WEIR_OPEN_TRUNCATE, &file);
    if (st)
        return st;
    st = weir_file_pwritev(file, iov, count, 0);
    weir_file_close(file);
    if (!st)
        st = weir_fs_rename(l->fs, other, path);
    if (!st)
        l->notes_bytes = iov_bytes(iov, count);
    return st;
}

/* ---- the filler ---- */

static uint64_t
ahead_locked(const struct local *l)
{
    uint64_t ahead = l->filled > l->begun ? l->filled - l->begun : 0;
    for (unsigned i = 0; i < l->prepared_count; i++)
        ahead += l->prepared[i].ready ? l->prepared[i].filled : 0;
    return ahead;
}

static uint64_t
local_ready_bytes(struct weir_journal *j)
{
    struct local *l = local_of(j);
    pthread_mutex_lock(&l->mtx);
    uint64_t ahead = ahead_locked(l);
    pthread_mutex_unlock(&l->mtx);
    return ahead;
}

/* Zeros at [from, to) of a segment, durable. */
static enum weir_status
fill(struct local *l, uint64_t segment, uint64_t made, uint64_t from, uint64_t to)
{
    enum weir_status st = WEIR_OK;
    if (l->fill_file_segment != segment || l->fill_file_made != made) {
        weir_file_close(l->fill_file);
        l->fill_file = NULL;
        l->fill_file_segment = 0;
        char path[PATH_MAX_BYTES];
        segment_path(l, segment, "seg", path);
        st = weir_fs_open(l->fs, path, WEIR_OPEN_WRITE, &l->fill_file);
        if (st)
            return st;
        l->fill_file_segment = segment;
        l->fill_file_made = made;
    }
    struct iovec iov[FILL_BYTES / ZEROS_BYTES + 1];
    int count = 0;
    for (uint64_t at = from; at < to; at += iov[count++].iov_len)
        iov[count] =
            (struct iovec){(void *)(uintptr_t)zeros, to - at < ZEROS_BYTES ? to - at : ZEROS_BYTES};
    st = weir_file_pwritev(l->fill_file, iov, count, from);
    return st ? st : weir_file_datasync(l->fill_file);
}

/* Makes the file that comes after all others, from a spare if there is one. Called with the lock,
 * returns with it. */
static enum weir_status
make_next(struct local *l)
{
    char path[PATH_MAX_BYTES], spare[PATH_MAX_BYTES] = "";
    uint64_t number = l->segment + l->prepared_count + 1, filled = 0;
    l->prepared[l->prepared_count++] = (struct prepared){.segment = number};
    l->fill_segment = number;
    l->fill_from = 0;
    l->fill_to = UINT64_MAX;
    /* A file of that name may be there, from before a failure; whoever has it open must not go on.
     */
    handle_forget(l, number);
    l->made++;
    if (l->spare_count)
        segment_path(l, l->spares[--l->spare_count], "spare", spare);
    pthread_mutex_unlock(&l->mtx);

    segment_path(l, number, "seg", path);
    struct weir_file *file = NULL;
    enum weir_status st = WEIR_OK;
    if (spare[0])
        st = weir_fs_rename(l->fs, spare, path);
    if (!st)
        st = weir_fs_open(l->fs, path, WEIR_OPEN_WRITE | WEIR_OPEN_CREATE, &file);
    if (!st)
        st = weir_file_size(file, &filled);
    if (!st)
        st = weir_fs_sync_directory(l->fs, l->directory);
    weir_file_close(file);

    pthread_mutex_lock(&l->mtx);
    l->fill_segment = 0;
    /* roll() waited for us, so the row is as we left it. */
    struct prepared *last = &l->prepared[l->prepared_count - 1];
    WEIR_ASSERT(l->prepared_count && last->segment == number);
    if (st)
        l->prepared_count--;
    else
        *last = (struct prepared){number, filled, true};
    pthread_cond_broadcast(&l->filler_moved);
    return st;
}

/* Fills one piece of `segment` behind `from`. Called with the lock, returns with it. */
static enum weir_status
fill_piece(struct local *l, uint64_t segment, uint64_t from)
{
    uint64_t to = from + FILL_BYTES;
    if (to > l->segment_bytes)
        to = l->segment_bytes;
    l->fill_segment = segment;
    l->fill_from = from;
    l->fill_to = to;
    uint64_t made = l->made;
    pthread_mutex_unlock(&l->mtx);
    enum weir_status st = fill(l, segment, made, from, to);
    pthread_mutex_lock(&l->mtx);
    l->fill_segment = 0;
    if (!st && l->segment == segment && l->filled < to)
        l->filled = to;
    for (unsigned i = 0; i < l->prepared_count && !st; i++)
        if (l->prepared[i].segment == segment)
            l->prepared[i].filled = to;
    pthread_cond_broadcast(&l->filler_moved);
    return st;
}

static enum weir_status
local_prepare(struct weir_journal *j)
{
    struct local *l = local_of(j);
    enum weir_status st = WEIR_END;
    pthread_mutex_lock(&l->mtx);
    uint64_t target = 2 * l->written > FILL_START_BYTES ? 2 * l->written : FILL_START_BYTES;
    if (target > l->prewrite_bytes)
        target = l->prewrite_bytes;
    bool behind = ahead_locked(l) < target;
    uint64_t from = l->filled > l->begun ? l->filled : l->begun;
    if (!l->prewrite_bytes || !l->active) {
        st = WEIR_END;
    } else if (behind && from < l->segment_bytes) {
        st = fill_piece(l, l->segment, from);
    } else if (!l->prepared_count && (behind || l->begun > l->segment_bytes / 2)) {
        /* The next file's name is there before it is needed. */
        st = make_next(l);
    } else if (behind) {
        struct prepared *last = &l->prepared[l->prepared_count - 1];
        if (last->filled < l->segment_bytes)
            st = fill_piece(l, last->segment, last->filled);
        else if (l->prepared_count < PREPARED_MAX)
            st = make_next(l);
    }
    pthread_mutex_unlock(&l->mtx);
    return st;
}

/* ---- life ---- */

static void
local_close(struct weir_journal *j)
{
    struct local *l = local_of(j);
    weir_file_close(l->fill_file);
    pthread_mutex_lock(&l->mtx);
    handle_put_locked(l->active);
    WEIR_LIST_FOR_EACH_SAFE (node, &l->used) {
        struct handle *h = WEIR_CONTAINER(node, struct handle, node);
        weir_list_remove(&h->node);
        handle_free(h);
    }
    pthread_mutex_unlock(&l->mtx);
    weir_map_fini(&l->handles);
    pthread_cond_destroy(&l->filler_moved);
    pthread_mutex_destroy(&l->mtx);
    free(l);
}

static const struct weir_journal_ops local_ops = {
    .caps = local_caps,
    .fence = local_fence,
    .list = local_list,
    .size = local_size,
    .note = local_note,
    .notes_read = local_notes_read,
    .notes_replace = local_notes_replace,
    .resume = local_resume,
    .roll = local_roll,
    .append = local_append,
    .sync = local_sync,
    .read = local_read,
    .advise = local_advise,
    .seal = local_seal,
    .trim = local_trim,
    .prepare = local_prepare,
    .ready_bytes = local_ready_bytes,
    .close = local_close,
};

enum weir_status
weir_journal_local(struct weir_fs *fs, const char *directory, uint64_t segment_bytes,
                   uint64_t prewrite_bytes, struct weir_journal **out, struct weir_error *err)
{
    struct local *l = calloc(1, sizeof *l);
    if (!l)
        return weir_fail(err, WEIR_NO_MEMORY, "cannot open journal '%s': no memory", directory);
    l->journal.ops = &local_ops;
    l->fs = fs;
    l->segment_bytes = segment_bytes;
    l->prewrite_bytes = prewrite_bytes;
    pthread_mutex_init(&l->mtx, NULL);
    pthread_cond_init(&l->filler_moved, NULL);
    weir_map_init(&l->handles, 0);
    weir_list_init(&l->used);
    if ((size_t)snprintf(l->directory, sizeof l->directory, "%s", directory) >=
        sizeof l->directory) {
        local_close(&l->journal);
        return weir_fail(err, WEIR_INVALID, "cannot open journal '%s': its name is too long",
                         directory);
    }
    enum weir_status st = weir_fs_mkdir(fs, directory);
    if (!st)
        st = weir_fs_sync_directory(fs, "");
    if (st) {
        local_close(&l->journal);
        return weir_fail(err, st, "cannot make directory '%s': %s", directory,
                         weir_status_text(st));
    }
    *out = &l->journal;
    return WEIR_OK;
}
