/* Frames: what decodes has the form its kind allows, and encodes to the same bytes. */
#include "base/assert.h"
#include "wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct weir_frame frame;
    if (weir_frame_decode(weir_bytes(data, size), &frame))
        return 0;
    WEIR_ASSERT(frame.body.len <= weir_frame_body_max(frame.kind));
    WEIR_ASSERT(frame.status < WEIR_STATUS_COUNT);
    struct weir_frame_header again;
    weir_frame_encode(&frame, &again);
    WEIR_ASSERT(memcmp(&again, data, sizeof again) == 0);
    return 0;
}
