/* Any bytes under any options: both walks say the same, to the byte and the word of a refusal; what
 * comes out is one line of JSON within the bound, and the peek agrees on what is a record. */
#include "base/assert.h"
#include "change/change.h"
#include "change/flatten.h"
#include "json/reader.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct weir_flatten_options
choose(uint8_t bits)
{
    return (struct weir_flatten_options){
        .event_time_ms = bits & 1,
        .numbers_as_text = bits & 2,
        .with_old = bits & 4,
        .remove_old_image = bits & 8,
        .event_id = bits & 16,
        .table = bits & 32,
        .seq = bits & 64 ? weir_bytes("1\"\n", 3) : weir_bytes(NULL, 0),
    };
}

static void
expect_json_line(struct weir_bytes line)
{
    WEIR_ASSERT(line.len > 0);
    WEIR_ASSERT(line.data[line.len - 1] == '\n');
    WEIR_ASSERT(!memchr(line.data, '\n', line.len - 1));
    struct weir_json_reader r;
    weir_json_reader_init(&r, line, WEIR_CHANGE_DEPTH_MAX + 2);
    WEIR_ASSERT(weir_json_next(&r) == WEIR_JSON_OBJECT);
    WEIR_ASSERT(weir_json_skip(&r));
    WEIR_ASSERT(weir_json_next(&r) == WEIR_JSON_END);
}

/* The first byte chooses the options. */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct weir_flatten_options options = choose(data[0]);
    struct weir_bytes record = weir_bytes(data + 1, size - 1);
    size_t bound = weir_flatten_bound(record.len, &options), len[2] = {0};
    uint8_t *out[2];
    enum weir_status st[2];
    struct weir_error err[2] = {0};
    for (int i = 0; i < 2; i++) {
        options.portable = i;
        out[i] = malloc(bound);
        WEIR_ASSERT(out[i]);
        st[i] = weir_flatten(record, &options, out[i], bound, &len[i], &err[i]);
    }
    WEIR_ASSERT(st[0] == st[1]);
    WEIR_ASSERT(strcmp(err[0].text, err[1].text) == 0);
    WEIR_ASSERT(weir_bytes_equal(weir_bytes(out[0], len[0]), weir_bytes(out[1], len[1])));
    if (st[0] == WEIR_OK)
        expect_json_line(weir_bytes(out[0], len[0]));

    struct weir_change_info info;
    struct weir_error peek_err = {0};
    WEIR_ASSERT(weir_change_peek(record, &info, &peek_err) == st[0]);
    WEIR_ASSERT(strcmp(peek_err.text, err[0].text) == 0);
    free(out[0]);
    free(out[1]);
    return 0;
}
