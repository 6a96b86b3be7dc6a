/* Unpacking a control message:
 *
 *   1. scan   the raw bytes against the descriptor: everything that protobuf-c would trust
 *   2. unpack with protobuf-c into an arena whose size the scan bounds
 *
 * The scan is stricter than protobuf: a field that is not repeated may come once, and one member of
 * a oneof. No encoder writes them twice, and protobuf-c's merging of them stays unused. Fields that
 * the descriptor does not know are skipped, so that a newer peer can be understood. */
#include "wire/message.h"
#include "base/assert.h"
#include <stdalign.h>
#include <stdlib.h>

/* ---- scan ---- */

enum wire_type { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
/* Asserted of each descriptor, for the table below and for arena_bound. */
enum { DESCRIPTOR_FIELDS_MAX = 64, STRUCT_BYTES_MAX = 384 };

struct scan {
    const ProtobufCMessageDescriptor *type;
    struct weir_bytes rest;
    unsigned depth;
    uint32_t seen[DESCRIPTOR_FIELDS_MAX];
};

static bool
read_varint(struct weir_bytes *from, uint64_t *out)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 10 && i < from->len; i++) {
        uint8_t b = from->data[i];
        v |= (uint64_t)(b & 0x7f) << 7 * i;
        if (b < 0x80) {
            if (i == 9 && b > 1)
                return false;
            from->data += i + 1;
            from->len -= i + 1;
            *out = v;
            return true;
        }
    }
    return false;
}

/* The bytes of a field's value; for BYTES what is between the length and the end. */
static bool
read_value(struct weir_bytes *from, enum wire_type type, struct weir_bytes *out)
{
    uint64_t len = 0, ignored;
    struct weir_bytes start = *from;
    switch (type) {
    case VARINT:
        if (!read_varint(from, &ignored))
            return false;
        *out = weir_bytes(start.data, start.len - from->len);
        return true;
    case FIXED64:
        len = 8;
        break;
    case FIXED32:
        len = 4;
        break;
    case BYTES:
        if (!read_varint(from, &len))
            return false;
        break;
    default:
        return false;
    }
    if (len > from->len)
        return false;
    *out = weir_bytes(from->data, len);
    from->data += len;
    from->len -= len;
    return true;
}

static enum wire_type
wire_type_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return BYTES;
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return FIXED32;
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return FIXED64;
    default:
        return VARINT;
    }
}

/* How many values a packed field holds. */
static bool
count_packed(struct weir_bytes value, enum wire_type type, uint32_t *out)
{
    uint32_t count = 0;
    struct weir_bytes one;
    while (value.len) {
        if (!read_value(&value, type, &one))
            return false;
        count++;
    }
    *out = count;
    return true;
}

static bool
oneof_is_taken(const struct scan *s, const ProtobufCFieldDescriptor *field)
{
    for (unsigned i = 0; i < s->type->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &s->type->fields[i];
        if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF &&
            f->quantifier_offset == field->quantifier_offset && s->seen[i])
            return true;
    }
    return false;
}

/* `budget`: fields that may still come, in the whole message. */
static enum weir_status scan_message(const ProtobufCMessageDescriptor *type,
                                     struct weir_bytes bytes, unsigned depth, uint32_t *budget);

static enum weir_status
scan_value(const ProtobufCFieldDescriptor *field, struct weir_bytes value, unsigned depth,
           uint32_t *budget)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        return scan_message(field->descriptor, value, depth + 1, budget);
    case PROTOBUF_C_TYPE_BYTES:
        return value.len > WEIR_MESSAGE_STRING_MAX ? WEIR_TOO_BIG : WEIR_OK;
    case PROTOBUF_C_TYPE_STRING:
        if (value.len > WEIR_MESSAGE_STRING_MAX)
            return WEIR_TOO_BIG;
        /* A NUL would cut the text short in C, and so slip past whoever checks it. */
        if (!weir_utf8_is_valid(value) || (value.len && memchr(value.data, 0, value.len)))
            return WEIR_INVALID;
        return WEIR_OK;
    default:
        return WEIR_OK;
    }
}

static enum weir_status
scan_field(struct scan *s, uint32_t *budget)
{
    uint64_t tag;
    if (!read_varint(&s->rest, &tag) || tag > UINT32_MAX || tag >> 3 == 0)
        return WEIR_INVALID;
    enum wire_type type = tag & 7;
    struct weir_bytes value;
    if (!read_value(&s->rest, type, &value))
        return WEIR_INVALID;

    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(s->type, (unsigned)(tag >> 3));
    uint32_t count = 1;
    if (field) {
        size_t index = (size_t)(field - s->type->fields);
        enum wire_type own = wire_type_of(field->type);
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            bool is_packed = type == BYTES && own != BYTES;
            if (is_packed ? !count_packed(value, own, &count) : type != own)
                return WEIR_INVALID;
            if (count > WEIR_MESSAGE_REPEATED_MAX - s->seen[index])
                return WEIR_TOO_BIG;
        } else if (type != own || s->seen[index] ||
                   (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF && oneof_is_taken(s, field))) {
            return WEIR_INVALID;
        }
        s->seen[index] += count;
    }
    if (count > *budget)
        return WEIR_TOO_BIG;
    *budget -= count;
    return field ? scan_value(field, value, s->depth, budget) : WEIR_OK;
}

static enum weir_status
scan_message(const ProtobufCMessageDescriptor *type, struct weir_bytes bytes, unsigned depth,
             uint32_t *budget)
{
    WEIR_ASSERT(type->n_fields <= DESCRIPTOR_FIELDS_MAX);
    WEIR_ASSERT(type->sizeof_message <= STRUCT_BYTES_MAX);
    if (depth > WEIR_MESSAGE_DEPTH_MAX)
        return WEIR_TOO_BIG;
    struct scan s = {.type = type, .rest = bytes, .depth = depth};
    while (s.rest.len) {
        enum weir_status st = scan_field(&s, budget);
        if (st)
            return st;
    }
    return WEIR_OK;
}

/* ---- arena ---- */

/* Blocks that are let go together. The message is the first thing in the first block, so that its
 * address is enough to find the arena again.
 *
 *   arena: | struct block | struct arena | message | … |  -> | struct block | … |
 */
struct block {
    alignas(16) struct block *next;
    size_t used, size; /* bytes behind this header */
};

struct arena {
    alignas(16) struct block first;
    struct block *last;
    size_t left; /* what may still be asked for */
    bool failed; /* an allocation did */
};

enum { ALIGNMENT = 16, BLOCK_MIN = 2048 };

/* What protobuf-c needs at most: a struct and a pointer per field, and the lists it scans into. */
static size_t
arena_bound(size_t bytes, uint32_t fields)
{
    return 16 * WEIR_KIB + 2 * bytes + (STRUCT_BYTES_MAX + 256) * (size_t)fields;
}

static void *
arena_take(struct arena *a, size_t size)
{
    if (size > a->left)
        return NULL;
    size_t rounded = (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (rounded > a->last->size - a->last->used) {
        size_t grown = 2 * a->last->size;
        size_t block_size = rounded > grown ? rounded : grown;
        struct block *b = malloc(sizeof *b + block_size);
        if (!b)
            return NULL;
        *b = (struct block){.size = block_size};
        a->last->next = b;
        a->last = b;
    }
    uint8_t *from = a->last == &a->first ? (uint8_t *)(a + 1) : (uint8_t *)(a->last + 1);
    void *p = from + a->last->used;
    a->last->used += rounded;
    a->left -= size;
    return p;
}

static void *
arena_alloc(void *data, size_t size)
{
    struct arena *a = data;
    void *p = arena_take(a, size);
    a->failed |= !p;
    return p;
}

static void
arena_free_one(void *data, void *pointer)
{
    (void)data;
    (void)pointer;
}

static struct arena *
arena_new(size_t bytes, uint32_t fields)
{
    size_t size = BLOCK_MIN + bytes;
    struct arena *a = malloc(sizeof *a + size);
    if (!a)
        return NULL;
    *a = (struct arena){.first = {.size = size}, .left = arena_bound(bytes, fields)};
    a->last = &a->first;
    return a;
}

static void
arena_free(struct arena *a)
{
    for (struct block *b = a->first.next; b;) {
        struct block *next = b->next;
        free(b);
        b = next;
    }
    free(a);
}

/* ---- messages ---- */

enum weir_status
weir_message_unpack(const ProtobufCMessageDescriptor *descriptor, struct weir_bytes bytes,
                    ProtobufCMessage **out)
{
    if (bytes.len > WEIR_CONTROL_BYTES_MAX)
        return WEIR_TOO_BIG;
    uint32_t budget = WEIR_MESSAGE_FIELDS_MAX;
    enum weir_status st = scan_message(descriptor, bytes, 1, &budget);
    if (st)
        return st;

    struct arena *a = arena_new(bytes.len, WEIR_MESSAGE_FIELDS_MAX - budget);
    if (!a)
        return WEIR_NO_MEMORY;
    ProtobufCAllocator allocator = {arena_alloc, arena_free_one, a};
    ProtobufCMessage *message =
        protobuf_c_message_unpack(descriptor, &allocator, bytes.len, bytes.data);
    if (!message) {
        st = a->failed ? WEIR_NO_MEMORY : WEIR_INVALID;
        arena_free(a);
        return st;
    }
    WEIR_ASSERT((void *)message == (void *)(a + 1));
    *out = message;
    return WEIR_OK;
}

void
weir_message_free(ProtobufCMessage *message)
{
    if (message)
        arena_free((struct arena *)(void *)message - 1);
}

enum weir_status
weir_message_frame(const struct weir_frame *head, const ProtobufCMessage *message,
                   struct weir_buf **out)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    if (size > weir_frame_body_max(head->kind))
        return WEIR_TOO_BIG;
    struct weir_frame_header header;
    weir_frame_encode(head, &header);
    struct weir_buf *buf = weir_buf_new(sizeof header + size);
    if (!buf)
        return WEIR_NO_MEMORY;
    memcpy(buf->data, &header, sizeof header);
    buf->len = sizeof header + protobuf_c_message_pack(message, buf->data + sizeof header);
    WEIR_ASSERT(buf->len == sizeof header + size);
    *out = buf;
    return WEIR_OK;
}
