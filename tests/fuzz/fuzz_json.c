/* Any bytes: the reader ends, and what it accepts it accepts again after the writer wrote it. */
#include "base/assert.h"
#include "json/reader.h"
#include "json/writer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Writes the tokens of one value as they come; false on an error. */
static bool
copy(struct weir_json_reader *r, struct weir_json_writer *w, struct weir_text *scratch)
{
    for (;;) {
        switch (weir_json_next(r)) {
        case WEIR_JSON_END:
            return true;
        case WEIR_JSON_ERROR:
            WEIR_ASSERT(r->at <= (size_t)(r->end - r->begin));
            WEIR_ASSERT(r->reason[0] != 0);
            return false;
        case WEIR_JSON_OBJECT:
            weir_json_begin_object(w);
            break;
        case WEIR_JSON_OBJECT_END:
            weir_json_end_object(w);
            break;
        case WEIR_JSON_ARRAY:
            weir_json_begin_array(w);
            break;
        case WEIR_JSON_ARRAY_END:
            weir_json_end_array(w);
            break;
        case WEIR_JSON_NAME:
        case WEIR_JSON_STRING:
            weir_text_clear(scratch);
            WEIR_ASSERT(weir_json_append(r, scratch) == WEIR_OK);
            struct weir_bytes plain = weir_bytes(scratch->data, scratch->len);
            WEIR_ASSERT(weir_json_text_equal(r->text, plain));
            if (r->token == WEIR_JSON_NAME)
                weir_json_write_name_bytes(w, plain);
            else
                weir_json_write_string(w, plain);
            break;
        default:
            weir_json_write_raw(w, r->text);
            break;
        }
    }
}

static bool
rewrite(struct weir_bytes json, struct weir_text *out, struct weir_text *scratch)
{
    struct weir_json_reader r;
    struct weir_json_writer w;
    weir_json_reader_init(&r, json, 32);
    weir_json_writer_init(&w, out);
    return copy(&r, &w, scratch);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct weir_bytes json = weir_bytes(data, size);
    WEIR_ASSERT(weir_json_utf8_bad_at(json) == weir_json_utf8_bad_at_portable(json));
    WEIR_ASSERT(weir_json_scan_best()(data, data + size) ==
                weir_json_scan_portable(data, data + size));

    struct weir_text once = {0}, twice = {0}, scratch = {0};
    if (rewrite(json, &once, &scratch)) {
        struct weir_bytes first = weir_bytes(once.data, once.len);
        WEIR_ASSERT(rewrite(first, &twice, &scratch));
        WEIR_ASSERT(weir_bytes_equal(first, weir_bytes(twice.data, twice.len)));

        struct weir_json_reader r;
        weir_json_reader_init(&r, json, 32);
        weir_json_next(&r);
        WEIR_ASSERT(weir_json_skip(&r));
        WEIR_ASSERT(weir_json_next(&r) == WEIR_JSON_END);
    }
    weir_text_fini(&once);
    weir_text_fini(&twice);
    weir_text_fini(&scratch);
    return 0;
}
