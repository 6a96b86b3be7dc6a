/* Control messages: whatever the scan lets through, protobuf-c unpacks within the arena, and what
 * it packs again passes again. The first byte chooses the type. */
#include "base/assert.h"
#include "wire/message.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const ProtobufCMessageDescriptor *const types[] = {
        &weir__request__descriptor, &weir__reply__descriptor,   &weir__hello__descriptor,
        &weir__welcome__descriptor, &weir__refusal__descriptor, &weir__end_of_shard__descriptor,
    };
    if (size < 1)
        return 0;
    const ProtobufCMessageDescriptor *type = types[*data++ % (sizeof types / sizeof *types)];
    size--;

    ProtobufCMessage *message, *again;
    if (weir_message_unpack(type, weir_bytes(data, size), &message))
        return 0;
    size_t packed_size = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = malloc(packed_size + 1);
    WEIR_ASSERT(packed);
    WEIR_ASSERT(protobuf_c_message_pack(message, packed) == packed_size);
    if (packed_size <= WEIR_CONTROL_BYTES_MAX) {
        WEIR_ASSERT(weir_message_unpack(type, weir_bytes(packed, packed_size), &again) == WEIR_OK);
        WEIR_ASSERT(protobuf_c_message_get_packed_size(again) == packed_size);
        weir_message_free(again);
    }
    free(packed);
    weir_message_free(message);
    return 0;
}
