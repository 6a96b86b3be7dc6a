/* What the disk knows and what it would know after a power cut, side by side.
 *
 *   directory   entries         what open and list see
 *               synced          what sync_directory has made durable
 *   names       the changes of entries since, in order, over all directories (memfs.names)
 *
 *   file        now             what reads see
 *               synced          what datasync has made durable
 *               writes          the changes of `now` since, in order
 *
 * A cut builds a new tree: the synced entries plus some of the changed names, in each file the
 * synced bytes plus some sectors of the writes. It leaves the old tree alone, so a fork is the same
 * thing beside the original. Bytes lie in counted blocks that trees and states share until one
 * writes.
 *
 * A name that is kept brings the changes that it builds upon (the same name or the same file): a
 * file system's journal keeps that order, and a rename is always whole. */
#include "sys/memfs.h"
#include "base/assert.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define BLOCK ((size_t)16384)
#define SECTOR ((uint64_t)512)
#define SIZE_LIMIT ((uint64_t)1 << 40)

struct block {
    atomic_uint refs; /* trees of different disks share blocks */
    uint8_t bytes[BLOCK];
};

/* `count` blocks cover `size`; NULL is a block of zeros, and so is everything past the size. */
struct content {
    struct block **blocks;
    size_t count;
    uint64_t size;
};

struct change {
    struct change *next;
    uint64_t off;
    size_t len;
    bool is_truncate; /* to `off` */
    bool lost;        /* a sync failed over it: no later one makes it durable */
    uint8_t data[];
};

struct entry {
    char *name;
    struct node *node;
};

struct entries {
    struct entry *list;
    size_t count, capacity;
};

struct node {
    unsigned refs; /* entries, names, open files, the root */
    bool is_directory;

    struct entries entries, synced_entries, scratch;
    uint64_t scratch_round; /* the cut that `scratch` was made for */

    struct content now, synced;
    struct change *first, **last;
    bool named; /* it counts against the capacity */
    void *locked_by;
    int64_t lock_pid;
};

enum name_kind { NAME_LINK, NAME_UNLINK, NAME_RENAME };

struct name_change {
    struct name_change *next;
    enum name_kind kind;
    struct node *node;
    struct node *from_dir, *to_dir; /* NULL where the kind has none */
    char *from, *to;
    bool from_synced, to_synced, chosen;
};

struct plan {
    uint64_t at; /* the number of the call; 0: none */
    enum weir_status st;
    bool sticky;
};

struct weir_memfs {
    struct weir_fs fs;
    pthread_mutex_t mtx;

    /* shared, under mtx */
    struct node *root;
    struct name_change *names;
    uint64_t calls[WEIR_MEMFS_CALLS];
    struct plan plans[WEIR_MEMFS_CALLS];
    uint64_t capacity, held;
    uint64_t cuts;   /* files opened before the last one are dead */
    uint64_t rounds; /* trees built */
    struct weir_random random;
};

struct mem_file {
    struct weir_file file;
    struct weir_memfs *m;
    struct node *node;
    uint64_t cuts;
    bool writable;
};

static void *
must(void *memory)
{
    WEIR_ASSERT(memory); /* a test's disk: no memory, no test */
    return memory;
}

static uint64_t
min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static struct block *
block_ref(struct block *block)
{
    if (block)
        atomic_fetch_add_explicit(&block->refs, 1, memory_order_relaxed);
    return block;
}

static void
block_unref(struct block *block)
{
    if (block && atomic_fetch_sub_explicit(&block->refs, 1, memory_order_acq_rel) == 1)
        free(block);
}

/* The block, ours alone, to be written. */
static struct block *
block_own(struct block **slot)
{
    struct block *old = *slot;
    if (old && atomic_load_explicit(&old->refs, memory_order_acquire) == 1)
        return old;
    struct block *own = must(calloc(1, sizeof *own));
    atomic_init(&own->refs, 1);
    if (old)
        memcpy(own->bytes, old->bytes, BLOCK);
    block_unref(old);
    *slot = own;
    return own;
}

static bool
is_zero(const uint8_t *data, size_t len)
{
    return len == 0 || (data[0] == 0 && memcmp(data, data + 1, len - 1) == 0);
}

static void
content_resize(struct content *c, uint64_t size)
{
    size_t count = (size_t)((size + BLOCK - 1) / BLOCK);
    for (size_t i = count; i < c->count; i++)
        block_unref(c->blocks[i]);
    if (count != c->count) {
        size_t capacity = count ? count : 1;
        c->blocks = must(realloc(c->blocks, capacity * sizeof(struct block *)));
    }
    for (size_t i = c->count; i < count; i++)
        c->blocks[i] = NULL;
    c->count = count;
    size_t tail = (size_t)(size % BLOCK);
    if (size < c->size && tail && c->blocks[count - 1])
        memset(block_own(&c->blocks[count - 1])->bytes + tail, 0, BLOCK - tail);
    c->size = size;
}

static void
content_write(struct content *c, uint64_t off, const uint8_t *data, size_t len)
{
    if (len && off + len > c->size)
        content_resize(c, off + len);
    while (len > 0) {
        struct block **slot = &c->blocks[off / BLOCK];
        size_t at = (size_t)(off % BLOCK);
        size_t n = len < BLOCK - at ? len : BLOCK - at;
        if (*slot || !is_zero(data, n))
            memcpy(block_own(slot)->bytes + at, data, n);
        off += n;
        data += n;
        len -= n;
    }
}

static size_t
content_read(const struct content *c, uint64_t off, uint8_t *out, size_t len)
{
    size_t done = 0;
    if (off >= c->size)
        return 0;
    len = (size_t)min_u64(len, c->size - off);
    while (done < len) {
        const struct block *block = c->blocks[(off + done) / BLOCK];
        size_t at = (size_t)((off + done) % BLOCK);
        size_t n = len - done < BLOCK - at ? len - done : BLOCK - at;
        if (block)
            memcpy(out + done, block->bytes + at, n);
        else
            memset(out + done, 0, n);
        done += n;
    }
    return done;
}

/* Makes blocks first..last of `to` the same as in `from`. */
static void
content_share(struct content *to, const struct content *from, size_t first, size_t last)
{
    if (to->size != from->size)
        content_resize(to, from->size);
    for (size_t i = first; i <= last && i < from->count; i++) {
        struct block *old = to->blocks[i];
        to->blocks[i] = block_ref(from->blocks[i]);
        block_unref(old);
    }
}

static void
content_free(struct content *c)
{
    content_resize(c, 0);
    free(c->blocks);
    *c = (struct content){0};
}

static struct entry *
entries_find(const struct entries *e, const char *name)
{
    for (size_t i = 0; i < e->count; i++) {
        if (strcmp(e->list[i].name, name) == 0)
            return &e->list[i];
    }
    return NULL;
}

static void node_unref(struct node *node);

static struct node *
node_ref(struct node *node)
{
    node->refs++;
    return node;
}

static void
entries_set(struct entries *e, const char *name, struct node *node)
{
    struct entry *entry = entries_find(e, name);
    node_ref(node);
    if (entry) {
        node_unref(entry->node);
        entry->node = node;
        return;
    }
    if (e->count == e->capacity) {
        e->capacity = e->capacity ? 2 * e->capacity : 8;
        e->list = must(realloc(e->list, e->capacity * sizeof *e->list));
    }
    e->list[e->count++] = (struct entry){must(strdup(name)), node};
}

/* Only if it is this node's, where one is given. */
static void
entries_drop(struct entries *e, const char *name, const struct node *node)
{
    struct entry *entry = entries_find(e, name);
    if (!entry || (node && entry->node != node))
        return;
    struct entry gone = *entry;
    *entry = e->list[--e->count];
    free(gone.name);
    node_unref(gone.node);
}

static void
entries_free(struct entries *e)
{
    for (size_t i = 0; i < e->count; i++) {
        free(e->list[i].name);
        node_unref(e->list[i].node);
    }
    free(e->list);
    *e = (struct entries){0};
}

static void
entries_copy(struct entries *to, const struct entries *from)
{
    entries_free(to);
    for (size_t i = 0; i < from->count; i++)
        entries_set(to, from->list[i].name, from->list[i].node);
}

static struct node *
node_new(bool is_directory)
{
    struct node *node = must(calloc(1, sizeof *node));
    node->refs = 1;
    node->is_directory = is_directory;
    node->last = &node->first;
    return node;
}

static void
node_unref(struct node *node)
{
    if (--node->refs > 0)
        return;
    entries_free(&node->entries);
    entries_free(&node->synced_entries);
    entries_free(&node->scratch);
    content_free(&node->now);
    content_free(&node->synced);
    for (struct change *c = node->first, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(node);
}

static void
change_add(struct node *node, bool is_truncate, uint64_t off, const uint8_t *data, size_t len)
{
    struct change *c = must(malloc(sizeof *c + len));
    *c = (struct change){.off = off, .len = len, .is_truncate = is_truncate};
    if (len)
        memcpy(c->data, data, len);
    *node->last = c;
    node->last = &c->next;
}

static void
change_apply(const struct change *c, struct content *to)
{
    if (c->is_truncate)
        content_resize(to, c->off);
    else
        content_write(to, c->off, c->data, c->len);
}

/* `c` is durable now: what an earlier change that was lost has of the same bytes can no longer come
 * to the disk instead of it. */
static void
change_supersede(struct change *first, const struct change *c)
{
    for (struct change *old = first; old != c; old = old->next) {
        if (!old->lost)
            continue;
        if (old->is_truncate) {
            if (c->is_truncate || c->off + c->len > old->off)
                old->off = c->off + c->len;
            continue;
        }
        uint64_t end = old->off + old->len;
        if (c->is_truncate && c->off < end) {
            old->len = c->off > old->off ? (size_t)(c->off - old->off) : 0;
            continue;
        }
        uint64_t from = c->off > old->off ? c->off : old->off;
        uint64_t to = min_u64(c->off + c->len, end);
        if (!c->is_truncate && from < to)
            memcpy(old->data + (from - old->off), c->data + (from - c->off), (size_t)(to - from));
    }
}

/* The file's bytes become durable, but for those that a failed sync has lost. */
static void
node_sync(struct node *node)
{
    bool lost = false, truncated = false;
    for (struct change *c = node->first; c; c = c->next) {
        lost |= c->lost;
        truncated |= c->is_truncate;
    }
    if (truncated && !lost)
        content_share(&node->synced, &node->now, 0, SIZE_MAX);
    struct change **at = &node->first;
    while (*at) {
        struct change *c = *at;
        if (c->lost) {
            at = &c->next;
            continue;
        }
        if (lost) {
            change_apply(c, &node->synced);
            change_supersede(node->first, c);
        } else if (!truncated && c->len)
            content_share(&node->synced, &node->now, (size_t)(c->off / BLOCK),
                          (size_t)((c->off + c->len - 1) / BLOCK));
        *at = c->next;
        free(c);
    }
    node->last = at;
}

static bool
name_touches(const struct name_change *c, const struct node *dir, const char *name)
{
    return (c->from_dir == dir && strcmp(c->from, name) == 0) ||
           (c->to_dir == dir && strcmp(c->to, name) == 0);
}

static bool
name_builds_on(const struct name_change *later, const struct name_change *earlier)
{
    return later->node == earlier->node ||
           (later->from_dir && name_touches(earlier, later->from_dir, later->from)) ||
           (later->to_dir && name_touches(earlier, later->to_dir, later->to));
}

/* Chooses what the chosen ones build upon: from the latest back, so that one pass is enough. */
static void
names_close(struct name_change *names)
{
    size_t count = 0, i = 0;
    for (struct name_change *c = names; c; c = c->next)
        count++;
    struct name_change **all = must(malloc((count + 1) * sizeof(struct name_change *)));
    for (struct name_change *c = names; c; c = c->next)
        all[i++] = c;
    while (count-- > 0) {
        for (const struct name_change *late = all[count]->next; late && !all[count]->chosen;
             late = late->next)
            all[count]->chosen = late->chosen && name_builds_on(late, all[count]);
    }
    free(all);
}

static void
name_apply(const struct name_change *c, struct entries *from, struct entries *to)
{
    if (c->kind != NAME_LINK)
        entries_drop(from, c->from, c->node);
    if (c->kind != NAME_UNLINK)
        entries_set(to, c->to, c->node);
}

static void
name_free(struct name_change *c)
{
    node_unref(c->node);
    if (c->from_dir)
        node_unref(c->from_dir);
    if (c->to_dir)
        node_unref(c->to_dir);
    free(c->from);
    free(c->to);
    free(c);
}

/* Changes the entries now and remembers that the disk does not know it yet. */
static void
name_add(struct weir_memfs *m, enum name_kind kind, struct node *node, struct node *from_dir,
         const char *from, struct node *to_dir, const char *to)
{
    struct name_change *c = must(calloc(1, sizeof *c));
    c->kind = kind;
    c->node = node_ref(node);
    c->from_synced = !from_dir;
    c->to_synced = !to_dir;
    if (from_dir) {
        c->from_dir = node_ref(from_dir);
        c->from = must(strdup(from));
    }
    if (to_dir) {
        c->to_dir = node_ref(to_dir);
        c->to = must(strdup(to));
    }
    struct name_change **at = &m->names;
    while (*at)
        at = &(*at)->next;
    *at = c;
    name_apply(c, from_dir ? &from_dir->entries : NULL, to_dir ? &to_dir->entries : NULL);
}

static void
names_sync(struct weir_memfs *m, const struct node *dir)
{
    for (struct name_change *c = m->names; c; c = c->next) {
        c->from_synced |= c->from_dir == dir;
        c->to_synced |= c->to_dir == dir;
        c->chosen = c->from_synced && c->to_synced;
    }
    names_close(m->names);
    for (struct name_change **at = &m->names, *c; (c = *at);) {
        if (!c->chosen) {
            at = &c->next;
            continue;
        }
        name_apply(c, c->from_dir ? &c->from_dir->synced_entries : NULL,
                   c->to_dir ? &c->to_dir->synced_entries : NULL);
        *at = c->next;
        name_free(c);
    }
}

/* The directory that holds the last part of the path, and that part. */
static enum weir_status
walk(struct weir_memfs *m, const char *path, struct node **dir_out, char name[256])
{
    struct node *dir = m->root;
    if (*path == '/')
        return WEIR_INVALID;
    for (;;) {
        size_t len = strcspn(path, "/");
        if (len > 255)
            return WEIR_INVALID;
        memcpy(name, path, len);
        name[len] = '\0';
        if (strcmp(name, "..") == 0)
            return WEIR_INVALID;
        if (strcmp(name, ".") == 0)
            name[0] = '\0';
        path += len;
        path += strspn(path, "/");
        if (!*path)
            break;
        if (!name[0])
            continue;
        struct entry *entry = entries_find(&dir->entries, name);
        if (!entry)
            return WEIR_NOT_FOUND;
        if (!entry->node->is_directory)
            return WEIR_INVALID;
        dir = entry->node;
    }
    *dir_out = dir;
    return WEIR_OK;
}

static enum weir_status
find(struct weir_memfs *m, const char *path, struct node **out)
{
    struct node *dir;
    char name[256];
    enum weir_status st = walk(m, path, &dir, name);
    if (st)
        return st;
    if (name[0]) {
        struct entry *entry = entries_find(&dir->entries, name);
        if (!entry)
            return WEIR_NOT_FOUND;
        dir = entry->node;
    }
    *out = dir;
    return WEIR_OK;
}

static enum weir_status
find_file(struct weir_memfs *m, const char *path, struct node **out)
{
    struct node *node;
    enum weir_status st = find(m, path, &node);
    if (st)
        return st;
    if (node->is_directory)
        return WEIR_INVALID;
    *out = node;
    return WEIR_OK;
}

static enum weir_status
find_directory(struct weir_memfs *m, const char *path, struct node **out)
{
    struct node *node;
    enum weir_status st = find(m, path, &node);
    if (st)
        return st;
    if (!node->is_directory)
        return WEIR_INVALID;
    *out = node;
    return WEIR_OK;
}

static enum weir_status
planned(const struct plan *plan, uint64_t call)
{
    bool due = plan->at && (call == plan->at || (plan->sticky && call > plan->at));
    return due ? plan->st : WEIR_OK;
}

/* Counts the call and answers what a plan has for it. */
static enum weir_status
count_call(struct weir_memfs *m, enum weir_memfs_call call)
{
    uint64_t any = ++m->calls[WEIR_MEMFS_ANY];
    enum weir_status st = planned(&m->plans[WEIR_MEMFS_ANY], any);
    if (call != WEIR_MEMFS_ANY) {
        enum weir_status own = planned(&m->plans[call], ++m->calls[call]);
        st = st ? st : own;
    }
    return st;
}

static void
lock(struct weir_memfs *m)
{
    pthread_mutex_lock(&m->mtx);
}

static void
unlock(struct weir_memfs *m)
{
    pthread_mutex_unlock(&m->mtx);
}

static struct weir_memfs *
enter(struct weir_fs *fs)
{
    struct weir_memfs *m = (struct weir_memfs *)fs;
    lock(m);
    return m;
}

static enum weir_status
leave(struct weir_memfs *m, enum weir_status st)
{
    unlock(m);
    return st;
}

/* As enter, for a file: counts the call; a dead file answers IO. */
static enum weir_status
enter_file(struct weir_file *f, enum weir_memfs_call call, struct mem_file **out)
{
    struct mem_file *file = (struct mem_file *)f;
    pthread_mutex_lock(&file->m->mtx);
    *out = file;
    enum weir_status st = count_call(file->m, call);
    return file->cuts != file->m->cuts ? WEIR_IO : st;
}

/* The size that the capacity leaves for the file, up to `size`. */
static uint64_t
size_allowed(const struct weir_memfs *m, const struct node *node, uint64_t size)
{
    uint64_t limit = SIZE_LIMIT;
    if (m->capacity) {
        uint64_t left = m->capacity > m->held ? m->capacity - m->held : 0;
        limit = node->now.size + left;
    }
    return min_u64(size, limit);
}

static void
node_write(struct weir_memfs *m, struct node *node, uint64_t off, const uint8_t *data, size_t len)
{
    uint64_t before = node->now.size;
    content_write(&node->now, off, data, len);
    change_add(node, false, off, data, len);
    if (node->named)
        m->held += node->now.size - before;
}

static void
node_truncate(struct weir_memfs *m, struct node *node, uint64_t size)
{
    if (node->named)
        m->held = m->held - node->now.size + size;
    content_resize(&node->now, size);
    change_add(node, true, size, NULL, 0);
}

static enum weir_status
file_pread(struct weir_file *f, void *buf, size_t len, uint64_t off, size_t *read_out)
{
    struct mem_file *file;
    enum weir_status st = enter_file(f, WEIR_MEMFS_READ, &file);
    if (!st)
        *read_out = content_read(&file->node->now, off, buf, len);
    return leave(file->m, st);
}

static enum weir_status
file_pwritev(struct weir_file *f, const struct iovec *iov, int count, uint64_t off)
{
    struct mem_file *file;
    uint64_t total = 0;
    enum weir_status st = enter_file(f, WEIR_MEMFS_WRITE, &file);
    struct weir_memfs *m = file->m;
    if (file->cuts != m->cuts || !file->writable)
        return leave(m, WEIR_IO);
    for (int i = 0; i < count; i++)
        total += iov[i].iov_len;
    if (off > SIZE_LIMIT || total > SIZE_LIMIT - off)
        return leave(m, WEIR_TOO_BIG);

    /* A write that fails has stored some of its front. */
    uint64_t keep = total;
    if (st) {
        keep = weir_random_below(&m->random, total + 1);
    } else if (off + total > file->node->now.size) {
        uint64_t allowed = size_allowed(m, file->node, off + total);
        if (allowed < off + total) {
            keep = allowed > off ? allowed - off : 0;
            st = WEIR_NO_SPACE;
        }
    }
    /* One change, as one write: the pieces are the caller's business. */
    uint8_t *data = must(malloc((size_t)keep + 1));
    size_t at = 0;
    for (int i = 0; i < count && at < keep; i++) {
        size_t n = (size_t)min_u64(iov[i].iov_len, keep - at);
        if (n)
            memcpy(data + at, iov[i].iov_base, n);
        at += n;
    }
    if (keep)
        node_write(m, file->node, off, data, (size_t)keep);
    free(data);
    return leave(m, st);
}

static enum weir_status
file_datasync(struct weir_file *f)
{
    struct mem_file *file;
    enum weir_status st = enter_file(f, WEIR_MEMFS_SYNC, &file);
    if (file->cuts != file->m->cuts)
        return leave(file->m, WEIR_IO);
    if (st) {
        /* The kernel forgets that those pages were dirty. */
        for (struct change *c = file->node->first; c; c = c->next)
            c->lost = true;
    } else {
        node_sync(file->node);
    }
    return leave(file->m, st);
}

static enum weir_status
file_truncate(struct weir_file *f, uint64_t size)
{
    struct mem_file *file;
    enum weir_status st = enter_file(f, WEIR_MEMFS_TRUNCATE, &file);
    if (!st && !file->writable)
        st = WEIR_IO;
    if (!st && size > SIZE_LIMIT)
        st = WEIR_TOO_BIG;
    if (!st && size > file->node->now.size && size_allowed(file->m, file->node, size) < size)
        st = WEIR_NO_SPACE;
    if (!st)
        node_truncate(file->m, file->node, size);
    return leave(file->m, st);
}

static enum weir_status
file_size(struct weir_file *f, uint64_t *out)
{
    struct mem_file *file;
    enum weir_status st = enter_file(f, WEIR_MEMFS_ANY, &file);
    if (!st)
        *out = file->node->now.size;
    return leave(file->m, st);
}

static enum weir_status
file_advise(struct weir_file *f, uint64_t off, uint64_t len, int advice)
{
    (void)f, (void)off, (void)len, (void)advice;
    return WEIR_OK;
}

static void
file_close(struct weir_file *f)
{
    struct mem_file *file = (struct mem_file *)f;
    struct weir_memfs *m = file->m;
    pthread_mutex_lock(&m->mtx);
    if (file->node->locked_by == file)
        file->node->locked_by = NULL;
    node_unref(file->node);
    pthread_mutex_unlock(&m->mtx);
    free(file);
}

static const struct weir_file_ops file_ops = {
    file_pread, file_pwritev, file_datasync, file_truncate, file_size, file_advise, file_close,
};

static struct mem_file *
file_new(struct weir_memfs *m, struct node *node, bool writable)
{
    struct mem_file *file = must(malloc(sizeof *file));
    *file = (struct mem_file){{&file_ops}, m, node_ref(node), m->cuts, writable};
    return file;
}

static enum weir_status
open_node(struct weir_memfs *m, const char *path, int flags, struct node **out)
{
    struct node *dir;
    char name[256];
    enum weir_status st = walk(m, path, &dir, name);
    if (st)
        return st;
    if (!name[0])
        return WEIR_INVALID;
    struct entry *entry = entries_find(&dir->entries, name);
    if (!entry && !(flags & WEIR_OPEN_CREATE))
        return WEIR_NOT_FOUND;
    if (entry && flags & WEIR_OPEN_CREATE && flags & WEIR_OPEN_EXCLUSIVE)
        return WEIR_EXISTS;
    if (entry && entry->node->is_directory)
        return WEIR_INVALID;
    if (entry) {
        if (flags & WEIR_OPEN_TRUNCATE && entry->node->now.size)
            node_truncate(m, entry->node, 0);
        *out = entry->node;
        return WEIR_OK;
    }
    struct node *node = node_new(false);
    node->named = true;
    name_add(m, NAME_LINK, node, NULL, NULL, dir, name);
    node_unref(node); /* its entry holds it */
    *out = node;
    return WEIR_OK;
}

static enum weir_status
fs_open(struct weir_fs *fs, const char *path, int flags, struct weir_file **out)
{
    struct weir_memfs *m = enter(fs);
    struct node *node;
    enum weir_status st = count_call(m, WEIR_MEMFS_OPEN);
    if (!st)
        st = open_node(m, path, flags, &node);
    if (!st)
        *out = &file_new(m, node, flags & WEIR_OPEN_WRITE)->file;
    return leave(m, st);
}

static enum weir_status
fs_lock(struct weir_fs *fs, const char *path, struct weir_file **out, int64_t *holder_pid_out)
{
    struct weir_memfs *m = enter(fs);
    struct node *node;
    enum weir_status st = count_call(m, WEIR_MEMFS_OPEN);
    if (!st)
        st = open_node(m, path, WEIR_OPEN_WRITE | WEIR_OPEN_CREATE, &node);
    if (!st && node->locked_by) {
        *holder_pid_out = node->lock_pid;
        st = WEIR_BUSY;
    }
    if (!st) {
        struct mem_file *file = file_new(m, node, true);
        node->locked_by = file;
        node->lock_pid = getpid();
        *out = &file->file;
    }
    return leave(m, st);
}

/* The node has lost its name; what it held is free again. */
static void
unname(struct weir_memfs *m, struct node *node)
{
    if (node->named)
        m->held -= node->now.size;
    node->named = false;
}

static bool
is_below(const struct node *dir, const struct node *node)
{
    if (dir == node)
        return true;
    for (size_t i = 0; i < dir->entries.count; i++) {
        if (is_below(dir->entries.list[i].node, node))
            return true;
    }
    return false;
}

static enum weir_status
rename_node(struct weir_memfs *m, const char *from, const char *to)
{
    struct node *from_dir, *to_dir;
    char from_name[256], to_name[256];
    enum weir_status st = walk(m, from, &from_dir, from_name);
    if (st)
        return st;
    st = walk(m, to, &to_dir, to_name);
    if (st)
        return st;
    if (!from_name[0] || !to_name[0])
        return WEIR_INVALID;
    struct entry *source = entries_find(&from_dir->entries, from_name);
    struct entry *target = entries_find(&to_dir->entries, to_name);
    if (!source)
        return WEIR_NOT_FOUND;
    if (target && target->node == source->node)
        return WEIR_OK;
    if (is_below(source->node, to_dir))
        return WEIR_INVALID;
    if (target) {
        if (target->node->is_directory != source->node->is_directory)
            return WEIR_INVALID;
        if (target->node->entries.count)
            return WEIR_EXISTS;
        unname(m, target->node);
    }
    struct node *node = node_ref(source->node);
    name_add(m, NAME_RENAME, node, from_dir, from_name, to_dir, to_name);
    node_unref(node);
    return WEIR_OK;
}

static enum weir_status
fs_rename(struct weir_fs *fs, const char *from, const char *to)
{
    struct weir_memfs *m = enter(fs);
    enum weir_status st = count_call(m, WEIR_MEMFS_RENAME);
    if (!st)
        st = rename_node(m, from, to);
    return leave(m, st);
}

static enum weir_status
fs_remove(struct weir_fs *fs, const char *path)
{
    struct weir_memfs *m = enter(fs);
    struct node *dir;
    char name[256];
    struct entry *entry = NULL;
    enum weir_status st = count_call(m, WEIR_MEMFS_REMOVE);
    if (!st)
        st = walk(m, path, &dir, name);
    if (!st && !name[0])
        st = WEIR_INVALID;
    if (!st) {
        entry = entries_find(&dir->entries, name);
        if (!entry)
            st = WEIR_NOT_FOUND;
        else if (entry->node->entries.count)
            st = WEIR_EXISTS;
    }
    if (!st) {
        struct node *node = node_ref(entry->node);
        unname(m, node);
        name_add(m, NAME_UNLINK, node, dir, name, NULL, NULL);
        node_unref(node);
    }
    return leave(m, st);
}

static enum weir_status
fs_mkdir(struct weir_fs *fs, const char *path)
{
    struct weir_memfs *m = enter(fs);
    struct node *dir;
    char name[256];
    enum weir_status st = count_call(m, WEIR_MEMFS_ANY);
    if (!st)
        st = walk(m, path, &dir, name);
    if (!st && name[0]) {
        struct entry *entry = entries_find(&dir->entries, name);
        if (!entry) {
            struct node *node = node_new(true);
            name_add(m, NAME_LINK, node, NULL, NULL, dir, name);
            node_unref(node);
        } else if (!entry->node->is_directory) {
            st = WEIR_EXISTS;
        }
    }
    return leave(m, st);
}

static enum weir_status
fs_sync_directory(struct weir_fs *fs, const char *path)
{
    struct weir_memfs *m = enter(fs);
    struct node *dir;
    enum weir_status st = count_call(m, WEIR_MEMFS_SYNC_DIRECTORY);
    if (!st)
        st = find_directory(m, path, &dir);
    if (!st)
        names_sync(m, dir);
    return leave(m, st);
}

static enum weir_status
fs_list(struct weir_fs *fs, const char *path,
        void (*each)(void *arg, const struct weir_fs_entry *entry), void *arg)
{
    struct weir_memfs *m = enter(fs);
    struct node *dir;
    struct weir_fs_entry *found = NULL;
    size_t count = 0;
    enum weir_status st = count_call(m, WEIR_MEMFS_ANY);
    if (!st)
        st = find_directory(m, path, &dir);
    if (!st) {
        count = dir->entries.count;
        found = must(calloc(count + 1, sizeof *found));
        for (size_t i = 0; i < count; i++) {
            const struct entry *entry = &dir->entries.list[i];
            memcpy(found[i].name, entry->name, strlen(entry->name) + 1);
            found[i].is_directory = entry->node->is_directory;
        }
    }
    unlock(m);
    /* Not under the lock: `each` may use the disk. */
    for (size_t i = 0; i < count; i++)
        each(arg, &found[i]);
    free(found);
    return st;
}

static enum weir_status
fs_space(struct weir_fs *fs, uint64_t *free_bytes_out)
{
    struct weir_memfs *m = enter(fs);
    enum weir_status st = count_call(m, WEIR_MEMFS_ANY);
    uint64_t capacity = m->capacity ? m->capacity : SIZE_LIMIT;
    if (!st)
        *free_bytes_out = capacity > m->held ? capacity - m->held : 0;
    return leave(m, st);
}

/* In sectors; a directory itself takes nothing. */
static uint64_t
usage_of(const struct node *node)
{
    uint64_t total = (node->now.size + SECTOR - 1) / SECTOR * SECTOR;
    for (size_t i = 0; i < node->entries.count; i++)
        total += usage_of(node->entries.list[i].node);
    return total;
}

static enum weir_status
fs_usage(struct weir_fs *fs, const char *path, uint64_t *allocated_bytes_out)
{
    struct weir_memfs *m = enter(fs);
    struct node *node;
    enum weir_status st = count_call(m, WEIR_MEMFS_ANY);
    if (!st)
        st = find(m, path, &node);
    if (!st)
        *allocated_bytes_out = usage_of(node);
    return leave(m, st);
}

static const struct weir_fs_ops fs_ops = {
    fs_open, fs_rename, fs_remove, fs_mkdir, fs_sync_directory,
    fs_list, fs_lock,   fs_space,  fs_usage,
};

/* Some sectors of each write: all, none, a front, or any. */
static void
keep_some_sectors(const struct change *c, struct content *to, struct weir_random *random)
{
    uint64_t mode = weir_random_below(random, 4);
    uint64_t front = weir_random_below(random, c->len + 1);
    for (size_t at = 0; at < c->len;) {
        size_t n = (size_t)min_u64(c->len - at, SECTOR - (c->off + at) % SECTOR);
        bool coin = weir_random_below(random, 2);
        if (mode == 0 || (mode == 1 && at + n <= front) || (mode == 2 && coin))
            content_write(to, c->off + at, c->data + at, n);
        at += n;
    }
}

static void
cut_content(const struct node *node, enum weir_memfs_cut keep, struct weir_random *random,
            struct content *out)
{
    const struct content *base = keep == WEIR_MEMFS_KEEP_ALL ? &node->now : &node->synced;
    content_share(out, base, 0, SIZE_MAX);
    if (keep != WEIR_MEMFS_KEEP_SOME)
        return;
    for (const struct change *c = node->first; c; c = c->next) {
        if (!c->is_truncate)
            keep_some_sectors(c, out, random);
        else if (weir_random_below(random, 2))
            content_resize(out, c->off);
    }
    /* The length may get there before the bytes: zeros. */
    if (out->size < node->now.size && weir_random_below(random, 2))
        content_resize(out, node->now.size);
}

/* The directory's entries after the cut, begun from what is synced. */
static struct entries *
scratch_of(struct weir_memfs *m, struct node *dir)
{
    if (!dir)
        return NULL;
    if (dir->scratch_round != m->rounds) {
        entries_copy(&dir->scratch, &dir->synced_entries);
        dir->scratch_round = m->rounds;
    }
    return &dir->scratch;
}

static int
by_name(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static struct node *
cut_node(struct weir_memfs *m, struct node *node, enum weir_memfs_cut keep,
         struct weir_random *random)
{
    struct node *copy = node_new(node->is_directory);
    if (!node->is_directory) {
        copy->named = true;
        cut_content(node, keep, random, &copy->now);
        content_share(&copy->synced, &copy->now, 0, SIZE_MAX);
        return copy;
    }
    struct entries *entries = scratch_of(m, node);
    /* In order of name, so that the seed decides alone. */
    if (entries->count)
        qsort(entries->list, entries->count, sizeof *entries->list, by_name);
    for (size_t i = 0; i < entries->count; i++) {
        struct node *child = cut_node(m, entries->list[i].node, keep, random);
        entries_set(&copy->entries, entries->list[i].name, child);
        node_unref(child);
    }
    entries_copy(&copy->synced_entries, &copy->entries);
    entries_free(entries);
    return copy;
}

/* The tree as it would be after the cut; the present one is left as it is. */
static struct node *
cut_tree(struct weir_memfs *m, enum weir_memfs_cut keep, uint64_t seed)
{
    struct weir_random random;
    weir_random_init(&random, seed);
    m->rounds++;
    for (struct name_change *c = m->names; c; c = c->next)
        c->chosen = keep == WEIR_MEMFS_KEEP_ALL ||
                    (keep == WEIR_MEMFS_KEEP_SOME && weir_random_below(&random, 2));
    names_close(m->names);
    for (struct name_change *c = m->names; c; c = c->next) {
        struct entries *from = scratch_of(m, c->from_dir), *to = scratch_of(m, c->to_dir);
        if (c->chosen)
            name_apply(c, from, to);
    }
    struct node *root = cut_node(m, m->root, keep, &random);
    /* Directories that are in no kept entry have a copy of theirs still. */
    for (struct name_change *c = m->names; c; c = c->next) {
        if (c->from_dir)
            entries_free(&c->from_dir->scratch);
        if (c->to_dir)
            entries_free(&c->to_dir->scratch);
    }
    return root;
}

static uint64_t
held_by(const struct node *node)
{
    uint64_t total = node->now.size;
    for (size_t i = 0; i < node->entries.count; i++)
        total += held_by(node->entries.list[i].node);
    return total;
}

static struct weir_memfs *
memfs_new(struct node *root)
{
    struct weir_memfs *m = must(calloc(1, sizeof *m));
    m->fs.ops = &fs_ops;
    pthread_mutex_init(&m->mtx, NULL);
    m->root = root;
    m->held = held_by(root);
    weir_random_init(&m->random, 1);
    return m;
}

static void
drop_tree(struct weir_memfs *m)
{
    for (struct name_change *c = m->names, *next; c; c = next) {
        next = c->next;
        name_free(c);
    }
    m->names = NULL;
    node_unref(m->root);
    m->root = NULL;
}

struct weir_memfs *
weir_memfs_new(void)
{
    return memfs_new(node_new(true));
}

void
weir_memfs_free(struct weir_memfs *m)
{
    if (!m)
        return;
    drop_tree(m);
    pthread_mutex_destroy(&m->mtx);
    free(m);
}

struct weir_fs *
weir_memfs_fs(struct weir_memfs *m)
{
    return &m->fs;
}

void
weir_memfs_power_cut(struct weir_memfs *m, enum weir_memfs_cut keep, uint64_t seed)
{
    lock(m);
    struct node *root = cut_tree(m, keep, seed);
    drop_tree(m);
    m->root = root;
    m->held = held_by(root);
    m->cuts++;
    unlock(m);
}

struct weir_memfs *
weir_memfs_fork(struct weir_memfs *m, enum weir_memfs_cut keep, uint64_t seed)
{
    lock(m);
    struct weir_memfs *fork = memfs_new(cut_tree(m, keep, seed));
    fork->capacity = m->capacity;
    unlock(m);
    return fork;
}

void
weir_memfs_fail_nth(struct weir_memfs *m, enum weir_memfs_call call, uint64_t n,
                    enum weir_status st, bool sticky)
{
    WEIR_ASSERT(n > 0);
    lock(m);
    m->plans[call] = (struct plan){m->calls[call] + n, st, sticky};
    unlock(m);
}

void
weir_memfs_fail_clear(struct weir_memfs *m)
{
    lock(m);
    memset(m->plans, 0, sizeof m->plans);
    unlock(m);
}

uint64_t
weir_memfs_calls(struct weir_memfs *m, enum weir_memfs_call call)
{
    lock(m);
    uint64_t calls = m->calls[call];
    unlock(m);
    return calls;
}

void
weir_memfs_set_capacity(struct weir_memfs *m, uint64_t bytes)
{
    lock(m);
    m->capacity = bytes;
    unlock(m);
}

enum weir_status
weir_memfs_size(struct weir_memfs *m, const char *path, uint64_t *out)
{
    struct node *node;
    lock(m);
    enum weir_status st = find_file(m, path, &node);
    if (!st)
        *out = node->now.size;
    return leave(m, st);
}

static void
flip(struct content *c, uint64_t off, uint8_t mask)
{
    uint8_t byte;
    if (content_read(c, off, &byte, 1) == 0)
        return;
    byte ^= mask;
    content_write(c, off, &byte, 1);
}

enum weir_status
weir_memfs_flip(struct weir_memfs *m, const char *path, uint64_t off, uint8_t mask)
{
    struct node *node;
    lock(m);
    enum weir_status st = find_file(m, path, &node);
    if (!st && off >= node->now.size)
        st = WEIR_INVALID;
    if (!st) {
        flip(&node->now, off, mask);
        flip(&node->synced, off, mask);
    }
    return leave(m, st);
}

enum weir_status
weir_memfs_truncate(struct weir_memfs *m, const char *path, uint64_t size)
{
    struct node *node;
    lock(m);
    enum weir_status st = find_file(m, path, &node);
    if (!st && size > node->now.size)
        st = WEIR_INVALID;
    if (!st) {
        m->held -= node->now.size - size;
        content_resize(&node->now, size);
        if (node->synced.size > size)
            content_resize(&node->synced, size);
    }
    return leave(m, st);
}

enum weir_status
weir_memfs_copy(struct weir_memfs *m, const char *path, uint8_t *out, size_t len, uint64_t off)
{
    struct node *node;
    lock(m);
    enum weir_status st = find_file(m, path, &node);
    if (!st && (off > node->now.size || len > node->now.size - off))
        st = WEIR_INVALID;
    if (!st)
        content_read(&node->now, off, out, len);
    return leave(m, st);
}
