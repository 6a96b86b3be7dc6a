/* Any bytes, as a record and as an image: the views lie inside, and the images of an accepted
 * record can be walked to their end. */
#include "base/assert.h"
#include "change/change.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum weir_status
walk(struct weir_bytes image)
{
    struct weir_change_attributes attributes;
    struct weir_change_attribute attribute;
    struct weir_text text = {0};
    enum weir_status st;
    weir_change_attributes_init(&attributes, image);
    while ((st = weir_change_attributes_next(&attributes, &attribute)) == WEIR_OK) {
        WEIR_ASSERT(attribute.value.data >= image.data);
        WEIR_ASSERT(attribute.value.data + attribute.value.len <= image.data + image.len);
        weir_text_clear(&text);
        WEIR_ASSERT(weir_change_attribute_text(&attribute, &text) == WEIR_OK);
    }
    weir_text_fini(&text);
    return st;
}

static void
expect_image(struct weir_bytes record, struct weir_bytes image)
{
    if (!image.data)
        return;
    WEIR_ASSERT(image.data >= record.data);
    WEIR_ASSERT(image.data + image.len <= record.data + record.len);
    WEIR_ASSERT(walk(image) == WEIR_END);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct weir_bytes record = weir_bytes(data, size);
    struct weir_change_info info;
    enum weir_status st = walk(record);
    WEIR_ASSERT(st == WEIR_END || st == WEIR_INVALID || st == WEIR_TOO_BIG);
    if (weir_change_peek(record, &info, NULL) == WEIR_OK) {
        WEIR_ASSERT(info.keys.data);
        expect_image(record, info.keys);
        expect_image(record, info.new_image);
        expect_image(record, info.old_image);
    }
    return 0;
}
