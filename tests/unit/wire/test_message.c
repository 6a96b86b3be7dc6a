#include "wire/message.h"
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>

#define OK(call) cr_assert(eq(int, (call), WEIR_OK), "%s", #call)

/* A message built by hand, field by field. */
struct raw {
    uint8_t *data;
    size_t len, capacity;
};

static void
put_bytes(struct raw *r, const void *data, size_t len)
{
    if (r->len + len + 1 > r->capacity) {
        r->capacity = 2 * (r->len + len + 1);
        r->data = realloc(r->data, r->capacity);
    }
    if (len)
        memcpy(r->data + r->len, data, len);
    r->len += len;
}

static void
put_varint(struct raw *r, uint64_t v)
{
    do {
        uint8_t b = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        put_bytes(r, &b, 1);
        v >>= 7;
    } while (v);
}

static void
put_number(struct raw *r, unsigned field, uint64_t v)
{
    put_varint(r, field << 3);
    put_varint(r, v);
}

static void
put_field(struct raw *r, unsigned field, const void *data, size_t len)
{
    put_varint(r, field << 3 | 2);
    put_varint(r, len);
    put_bytes(r, data, len);
}

static enum weir_status
unpack(const ProtobufCMessageDescriptor *type, struct raw *r)
{
    ProtobufCMessage *message;
    enum weir_status st = weir_message_unpack(type, weir_bytes(r->data, r->len), &message);
    if (!st)
        weir_message_free(message);
    free(r->data);
    *r = (struct raw){0};
    return st;
}

/* What was packed into a frame comes back out of it, lists and nested messages too. */
Test(message, returns_what_was_packed)
{
    Weir__ShardInfo shards[3], *list[3];
    uint32_t children[] = {7, 8, 300};
    uint8_t hash[] = {1, 2};
    for (unsigned i = 0; i < 3; i++) {
        weir__shard_info__init(&shards[i]);
        shards[i].index = i;
        shards[i].parent = -1;
        shards[i].hash_low = (ProtobufCBinaryData){2, hash};
        shards[i].n_children = 3;
        shards[i].children = children;
        list[i] = &shards[i];
    }
    Weir__StreamInfo info = WEIR__STREAM_INFO__INIT;
    info.name = (char[]){"orders-日本"};
    info.retention_ms = UINT64_MAX;
    info.n_shards = 3;
    info.shards = list;
    Weir__Reply reply = WEIR__REPLY__INIT;
    reply.result_case = WEIR__REPLY__RESULT_STREAM;
    reply.stream = &info;

    struct weir_buf *buf;
    OK(weir_message_frame(&(struct weir_frame){.kind = WEIR_FRAME_REPLY, .number = 9}, &reply.base,
                          &buf));
    struct weir_frame frame;
    OK(weir_frame_decode(weir_buf_bytes(buf), &frame));
    cr_expect(eq(u64, frame.number, 9));
    ProtobufCMessage *message;
    OK(weir_message_unpack(&weir__reply__descriptor, frame.body, &message));
    Weir__Reply *back = (Weir__Reply *)message;
    cr_assert(back->result_case == WEIR__REPLY__RESULT_STREAM);
    cr_expect(eq(str, back->stream->name, info.name));
    cr_expect(eq(u64, back->stream->retention_ms, UINT64_MAX));
    cr_assert(eq(sz, back->stream->n_shards, 3));
    cr_expect(eq(i32, back->stream->shards[2]->parent, -1));
    cr_expect(eq(sz, back->stream->shards[2]->n_children, 3));
    cr_expect(eq(u32, back->stream->shards[2]->children[2], 300));
    cr_expect(eq(sz, back->stream->shards[1]->hash_low.len, 2));
    weir_message_free(message);
    weir_buf_unref(buf);
}

/* A message of defaults has no bytes, and no bytes are a message of defaults. */
Test(message, may_be_empty)
{
    Weir__Reply reply = WEIR__REPLY__INIT;
    struct weir_buf *buf;
    OK(weir_message_frame(&(struct weir_frame){.kind = WEIR_FRAME_REPLY}, &reply.base, &buf));
    cr_expect(eq(sz, buf->len, sizeof(struct weir_frame_header)));
    ProtobufCMessage *message;
    OK(weir_message_unpack(&weir__reply__descriptor, weir_bytes(NULL, 0), &message));
    cr_expect(eq(u32, ((Weir__Reply *)message)->status, 0));
    weir_message_free(message);
    weir_buf_unref(buf);
}

/* Fields of a newer peer are skipped, whatever their type. */
Test(message, skips_fields_it_does_not_know)
{
    struct raw r = {0};
    put_number(&r, 900, 5);
    put_field(&r, 901, "newer", 5);
    put_varint(&r, 902 << 3 | 1);
    put_bytes(&r, "12345678", 8);
    put_varint(&r, 903 << 3 | 5);
    put_bytes(&r, "1234", 4);
    put_number(&r, 1, 3);
    ProtobufCMessage *message;
    OK(weir_message_unpack(&weir__refusal__descriptor, weir_bytes(r.data, r.len), &message));
    cr_expect(eq(u32, ((Weir__Refusal *)message)->status, 3));
    weir_message_free(message);
    free(r.data);
}

/* Strings are UTF-8 without NUL, and within the limit. */
Test(message, bounds_strings)
{
    char *text = calloc(1, WEIR_MESSAGE_STRING_MAX + 2);
    memset(text, 'a', WEIR_MESSAGE_STRING_MAX + 1);
    struct raw r = {0};
    put_field(&r, 2, text, WEIR_MESSAGE_STRING_MAX);
    cr_expect(eq(int, unpack(&weir__refusal__descriptor, &r), WEIR_OK));
    put_field(&r, 2, text, WEIR_MESSAGE_STRING_MAX + 1);
    cr_expect(eq(int, unpack(&weir__refusal__descriptor, &r), WEIR_TOO_BIG));
    put_field(&r, 2, "\xc3(", 2);
    cr_expect(eq(int, unpack(&weir__refusal__descriptor, &r), WEIR_INVALID));
    put_field(&r, 2, "a\0b", 3);
    cr_expect(eq(int, unpack(&weir__refusal__descriptor, &r), WEIR_INVALID));
    free(text);
}

/* Lists are bounded, packed and unpacked, and so is the sum of all fields. */
Test(message, bounds_lists)
{
    struct raw r = {0}, list = {0};
    for (int i = 0; i < WEIR_MESSAGE_REPEATED_MAX; i++)
        put_varint(&list, 1);
    put_field(&r, 1, list.data, list.len);
    cr_expect(eq(int, unpack(&weir__reshard__descriptor, &r), WEIR_OK));
    put_field(&r, 1, list.data, list.len);
    put_number(&r, 1, 1);
    cr_expect(eq(int, unpack(&weir__reshard__descriptor, &r), WEIR_TOO_BIG));
    put_varint(&list, 1);
    put_field(&r, 1, list.data, list.len);
    cr_expect(eq(int, unpack(&weir__reshard__descriptor, &r), WEIR_TOO_BIG));
    free(list.data);

    for (int i = 0; i < WEIR_MESSAGE_FIELDS_MAX + 1; i++)
        put_number(&r, 15, 1); /* not known: counted all the same */
    cr_expect(eq(int, unpack(&weir__reshard__descriptor, &r), WEIR_TOO_BIG));
    for (int i = 0; i < WEIR_MESSAGE_REPEATED_MAX + 1; i++)
        put_field(&r, 1, "", 0);
    cr_expect(eq(int, unpack(&weir__checkpoint_list__descriptor, &r), WEIR_TOO_BIG));
}

/* The longest list of empty messages, the worst ratio of memory to bytes, still unpacks. */
Test(message, unpacks_the_longest_list)
{
    struct raw r = {0};
    for (int i = 0; i < WEIR_MESSAGE_REPEATED_MAX; i++)
        put_field(&r, 1, "", 0);
    ProtobufCMessage *message;
    OK(weir_message_unpack(&weir__consumer_list__descriptor, weir_bytes(r.data, r.len), &message));
    cr_expect(eq(sz, ((Weir__ConsumerList *)message)->n_items, WEIR_MESSAGE_REPEATED_MAX));
    weir_message_free(message);
    free(r.data);
}

/* A message over the limit of control messages is refused unread. */
Test(message, bounds_its_size)
{
    struct raw r = {0};
    uint8_t *zeros = calloc(1, WEIR_CONTROL_BYTES_MAX + 1);
    put_bytes(&r, zeros, WEIR_CONTROL_BYTES_MAX + 1);
    cr_expect(eq(int, unpack(&weir__reply__descriptor, &r), WEIR_TOO_BIG));
    free(zeros);

    Weir__Refusal refusal = WEIR__REFUSAL__INIT;
    refusal.text = calloc(1, WEIR_HELLO_BYTES_MAX);
    memset(refusal.text, 'x', WEIR_HELLO_BYTES_MAX - 1);
    struct weir_buf *buf;
    cr_expect(
        eq(int,
           weir_message_frame(&(struct weir_frame){.kind = WEIR_FRAME_REFUSE}, &refusal.base, &buf),
           WEIR_TOO_BIG));
    free(refusal.text);
}

/* What protobuf would merge or override is refused: a field twice, two members of a oneof. */
Test(message, refuses_what_comes_twice)
{
    struct raw r = {0};
    put_number(&r, 1, 3);
    put_number(&r, 1, 3);
    cr_expect(eq(int, unpack(&weir__refusal__descriptor, &r), WEIR_INVALID));
    put_field(&r, 3, "", 0);
    put_field(&r, 4, "", 0);
    cr_expect(eq(int, unpack(&weir__request__descriptor, &r), WEIR_INVALID));
    put_field(&r, 3, "", 0);
    put_field(&r, 3, "", 0);
    cr_expect(eq(int, unpack(&weir__request__descriptor, &r), WEIR_INVALID));
}

/* Broken encodings: a wrong wire type, groups, field 0, cut and overlong varints, lengths that lie.
 */
Test(message, refuses_broken_encodings)
{
    static const struct {
        const char *what, *bytes;
        size_t len;
    } bad[] = {
        {"number as bytes", "\x0a\x01\x01", 3},
        {"text as number", "\x10\x01", 2},
        {"start of a group", "\x0b", 1},
        {"end of a group", "\x0c", 1},
        {"wire type 6", "\x0e", 1},
        {"field 0", "\x00\x01", 2},
        {"cut varint", "\x08\x80", 2},
        {"no value", "\x08", 1},
        {"varint of 11 bytes", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12},
        {"varint over 64 bits", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11},
        {"length over the end",
         "\x12\x05"
         "abcd",
         6},
        {"length near 2^64", "\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11},
        {"cut fixed64", "\xf9\x3f\x01\x02", 4},
        {"tag over 32 bits", "\x80\x80\x80\x80\x80\x01\x01", 7},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct raw r = {0};
        put_bytes(&r, bad[i].bytes, bad[i].len);
        cr_expect(eq(int, unpack(&weir__refusal__descriptor, &r), WEIR_INVALID), "%s", bad[i].what);
    }
    struct raw r = {0};
    put_field(&r, 1, "\x80", 1); /* a packed list that ends within a number */
    cr_expect(eq(int, unpack(&weir__reshard__descriptor, &r), WEIR_INVALID));
}

/* Each message type of the protocol is within what the scan's tables and the arena assume. */
Test(message, unpacks_every_type_of_request_and_reply)
{
    const ProtobufCMessageDescriptor *types[] = {&weir__request__descriptor,
                                                 &weir__reply__descriptor};
    for (size_t t = 0; t < 2; t++)
        for (unsigned i = 0; i < types[t]->n_fields; i++)
            if (types[t]->fields[i].type == PROTOBUF_C_TYPE_MESSAGE) {
                struct raw r = {0};
                put_field(&r, types[t]->fields[i].id, "", 0);
                cr_expect(eq(int, unpack(types[t], &r), WEIR_OK), "%s", types[t]->fields[i].name);
            }
}
