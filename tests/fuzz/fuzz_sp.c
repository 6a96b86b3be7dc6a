/* The SP stream: the messages do not depend on how the bytes were cut on their way. The first byte
 * chooses ipc or tcp and whether a right greeting is put in front, the second how bytes are cut. */
#include "base/assert.h"
#include "transport/sp.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MESSAGE_MAX = 1 << 20 };

struct outcome {
    enum weir_status status;
    uint64_t digest; /* of all messages, with their borders */
    size_t count;
};

static uint64_t
mix(uint64_t digest, uint64_t v)
{
    return (digest ^ v) * 1099511628211u;
}

static void
take_messages(struct weir_sp *sp, struct outcome *o)
{
    struct weir_buf *m;
    while (!(o->status = weir_sp_next(sp, MESSAGE_MAX, &m))) {
        o->count++;
        o->digest = mix(o->digest, m->len);
        for (size_t i = 0; i < m->len; i++)
            o->digest = mix(o->digest, m->data[i]);
        weir_buf_unref(m);
    }
}

/* Feeds the stream in pieces of at most `most` bytes. */
static struct outcome
feed(bool is_ipc, struct weir_bytes bytes, size_t most)
{
    struct weir_sp sp = {.is_ipc = is_ipc};
    struct outcome o = {.status = WEIR_AGAIN};
    while (bytes.len && o.status == WEIR_AGAIN) {
        struct weir_sp_room room[2];
        unsigned places = weir_sp_room(&sp, room);
        size_t filled = 0;
        for (unsigned i = 0; i < places && bytes.len && filled < most; i++) {
            WEIR_ASSERT(room[i].len > 0);
            size_t len = room[i].len < bytes.len ? room[i].len : bytes.len;
            if (len > most - filled)
                len = most - filled;
            memcpy(room[i].data, bytes.data, len);
            bytes.data += len;
            bytes.len -= len;
            filled += len;
            if (len < room[i].len)
                break; /* places are filled in order */
        }
        weir_sp_filled(&sp, filled);
        take_messages(&sp, &o);
    }
    weir_sp_fini(&sp);
    return o;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    bool is_ipc = data[0] & 1;
    size_t greeting = data[0] & 2 ? WEIR_SP_GREETING_BYTES : 0;
    size_t most = 1 + data[1];
    data += 2;
    size -= 2;

    uint8_t *stream = malloc(greeting + size + 1);
    WEIR_ASSERT(stream);
    memcpy(stream, weir_sp_greeting, greeting);
    memcpy(stream + greeting, data, size);
    struct weir_bytes bytes = weir_bytes(stream, greeting + size);
    struct outcome whole = feed(is_ipc, bytes, SIZE_MAX);
    struct outcome cut = feed(is_ipc, bytes, most);
    WEIR_ASSERT(whole.status == cut.status);
    WEIR_ASSERT(whole.count == cut.count);
    WEIR_ASSERT(whole.digest == cut.digest);
    free(stream);
    return 0;
}
