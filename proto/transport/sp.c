#include "transport/sp.h"
#include "base/assert.h"
#include "base/le.h"
#include "base/limits.h"

/* Protocol number 0x0010: PAIR version 0. */
const uint8_t weir_sp_greeting[WEIR_SP_GREETING_BYTES] = {0, 'S', 'P', 0, 0, 0x10, 0, 0};

enum {
    /* A claim up to here gets its buffer at once; beyond it, the buffer grows as bytes come. A
     * frame of the usual target size is below. */
    CLAIM_MAX = 512 * 1024,
    IPC_MESSAGE = 1,
};

/* A saturated connection fetches much at a time, which is what makes it fast: 8 against 3 GB/s per
 * CPU-second over ipc with messages of 256 KiB, 1.1 against 0.7 over tcp with 1 KiB. An idle one,
 * or one that hears little, holds nothing. */
static const size_t stage_bytes[] = {
    sizeof((struct weir_sp){0}.small),
    16 * WEIR_KIB,
    64 * WEIR_KIB,
    256 * WEIR_KIB,
};
enum { LEVELS = sizeof stage_bytes / sizeof *stage_bytes };

size_t
weir_sp_prefix(bool is_ipc, uint64_t len, uint8_t out[WEIR_SP_PREFIX_BYTES_MAX])
{
    if (is_ipc)
        *out++ = IPC_MESSAGE;
    weir_store_be64(out, len);
    return is_ipc ? 9 : 8;
}

void
weir_sp_fini(struct weir_sp *sp)
{
    weir_buf_unref(sp->large);
    weir_buf_unref(sp->message);
    sp->large = sp->message = NULL;
}

static uint8_t *
stage(struct weir_sp *sp)
{
    return sp->large ? sp->large->data : sp->small;
}

static size_t
stage_size(const struct weir_sp *sp)
{
    return stage_bytes[sp->level];
}

/* Takes up the stage that is wanted, with what is left in the present one: a part of a prefix. */
static void
choose_stage(struct weir_sp *sp)
{
    uint8_t rest[WEIR_SP_GREETING_BYTES];
    size_t len = sp->end - sp->at;
    WEIR_ASSERT(len <= sizeof rest);
    memcpy(rest, stage(sp) + sp->at, len);
    if (sp->next_level != sp->level) {
        struct weir_buf *large = NULL;
        if (sp->next_level)
            large = weir_buf_new(stage_bytes[sp->next_level]);
        if (large || !sp->next_level) { /* without memory the present one still works */
            weir_buf_unref(sp->large);
            sp->large = large;
            sp->level = sp->next_level;
        }
    }
    memcpy(stage(sp), rest, len);
    sp->at = 0;
    sp->end = len;
}

unsigned
weir_sp_room(struct weir_sp *sp, struct weir_sp_room out[2])
{
    unsigned count = 0;
    if (sp->message) {
        struct weir_buf *m = sp->message;
        uint64_t missing = sp->message_len - m->len;
        size_t room = m->capacity - m->len;
        out[count].data = m->data + m->len;
        out[count++].len = missing < room ? (size_t)missing : room;
        if (missing > room)
            return count; /* the buffer grows first */
    }
    choose_stage(sp);
    out[count].data = stage(sp) + sp->end;
    out[count++].len = stage_size(sp) - sp->end;
    return count;
}

void
weir_sp_filled(struct weir_sp *sp, size_t len)
{
    size_t all = len;
    if (sp->message) {
        struct weir_buf *m = sp->message;
        uint64_t missing = sp->message_len - m->len;
        size_t own = missing < len ? (size_t)missing : len;
        WEIR_ASSERT(own <= m->capacity - m->len);
        m->len += own;
        len -= own;
    }
    WEIR_ASSERT(len <= stage_size(sp) - sp->end);
    sp->end += len;

    bool is_full = sp->end == stage_size(sp);
    if (is_full && sp->level + 1 < LEVELS) {
        sp->next_level = sp->level + 1;
    } else if (!is_full) {
        sp->next_level = 0;
        while (stage_bytes[sp->next_level] < all && sp->next_level < sp->level)
            sp->next_level++;
    }
}

enum weir_status
weir_sp_greet(struct weir_sp *sp)
{
    if (sp->greeted)
        return WEIR_OK;
    size_t there = sp->end - sp->at;
    size_t len = there < WEIR_SP_GREETING_BYTES ? there : WEIR_SP_GREETING_BYTES;
    if (memcmp(stage(sp) + sp->at, weir_sp_greeting, len) != 0)
        return WEIR_INVALID;
    if (len < WEIR_SP_GREETING_BYTES)
        return WEIR_AGAIN;
    sp->at += WEIR_SP_GREETING_BYTES;
    sp->greeted = true;
    return WEIR_OK;
}

/* Takes the next prefix off the stage and what is there of the body behind it. */
static enum weir_status
begin(struct weir_sp *sp, uint64_t max)
{
    size_t prefix = sp->is_ipc ? 9 : 8;
    const uint8_t *from = stage(sp) + sp->at;
    size_t there = sp->end - sp->at;
    if (there && sp->is_ipc && from[0] != IPC_MESSAGE)
        return WEIR_INVALID;
    if (there < prefix)
        return WEIR_AGAIN;
    uint64_t len = weir_load_be64(from + prefix - 8);
    if (len > max)
        return WEIR_TOO_BIG;
    sp->message = weir_buf_new(len < CLAIM_MAX ? (size_t)len + !len : CLAIM_MAX);
    if (!sp->message)
        return WEIR_NO_MEMORY;
    sp->message->len = 0;
    sp->message_len = len;
    sp->at += prefix;
    return WEIR_OK;
}

/* Makes room for more of a message whose buffer is full. */
static enum weir_status
grow(struct weir_sp *sp)
{
    struct weir_buf *m = sp->message;
    uint64_t capacity = 4 * (uint64_t)m->capacity;
    struct weir_buf *grown =
        weir_buf_new((size_t)(capacity < sp->message_len ? capacity : sp->message_len));
    if (!grown)
        return WEIR_NO_MEMORY;
    memcpy(grown->data, m->data, m->len);
    grown->len = m->len;
    weir_buf_unref(m);
    sp->message = grown;
    return WEIR_OK;
}

static void
copy_from_stage(struct weir_sp *sp)
{
    struct weir_buf *m = sp->message;
    size_t there = sp->end - sp->at;
    uint64_t missing = sp->message_len - m->len;
    size_t len = missing < there ? (size_t)missing : there;
    WEIR_ASSERT(len <= m->capacity - m->len);
    memcpy(m->data + m->len, stage(sp) + sp->at, len);
    m->len += len;
    sp->at += len;
}

enum weir_status
weir_sp_next(struct weir_sp *sp, uint64_t max, struct weir_buf **out)
{
    enum weir_status st = weir_sp_greet(sp);
    if (st)
        return st;
    if (!sp->message) {
        st = begin(sp, max);
        if (st)
            return st;
        copy_from_stage(sp);
    }
    if (sp->message->len < sp->message_len) {
        if (sp->message->len == sp->message->capacity) {
            st = grow(sp);
            if (st)
                return st;
        }
        return WEIR_AGAIN;
    }
    *out = sp->message;
    sp->message = NULL; /* the caller's now */
    return WEIR_OK;
}
