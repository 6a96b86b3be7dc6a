/* Writes JSON into a growing text: compact, commas and escapes right, always valid UTF-8.
 *
 *     struct weir_json_writer w;
 *     weir_json_writer_init(&w, &text);
 *     weir_json_begin_object(&w);
 *     weir_json_write_name(&w, "StreamName");
 *     weir_json_write_string(&w, name);
 *     weir_json_end_object(&w);
 *     st = weir_json_writer_status(&w);
 *
 * Threads: one at a time per writer. */
#pragma once
#include "base/bytes.h"
#include "base/status.h"
#include "base/text.h"

struct weir_json_writer {
    struct weir_text *out; /* borrowed */
    unsigned depth;
    bool comma; /* private: a value stands before, in the same container */
};

/* Appends to `out`, which must outlive the writer. */
void weir_json_writer_init(struct weir_json_writer *w, struct weir_text *out);
/* OK or NO_MEMORY; asserts that every container was ended. */
enum weir_status weir_json_writer_status(const struct weir_json_writer *w);
/* Starts over in the same text, for lines of JSON: ends the line with \n first. */
void weir_json_end_line(struct weir_json_writer *w);

void weir_json_begin_object(struct weir_json_writer *w);
void weir_json_end_object(struct weir_json_writer *w);
void weir_json_begin_array(struct weir_json_writer *w);
void weir_json_end_array(struct weir_json_writer *w);

/* The name of the member whose value comes next. */
void weir_json_write_name(struct weir_json_writer *w, const char *name);
void weir_json_write_name_bytes(struct weir_json_writer *w, struct weir_bytes name);

/* Bytes that are not UTF-8 become U+FFFD, one for each. */
void weir_json_write_string(struct weir_json_writer *w, struct weir_bytes text);
void weir_json_write_text(struct weir_json_writer *w, const char *text);
/* NULL is written as null. */
void weir_json_write_text_or_null(struct weir_json_writer *w, const char *text);
void weir_json_write_base64(struct weir_json_writer *w, struct weir_bytes bytes);
void weir_json_write_u64(struct weir_json_writer *w, uint64_t v);
void weir_json_write_i64(struct weir_json_writer *w, int64_t v);
void weir_json_write_bool(struct weir_json_writer *w, bool v);
void weir_json_write_null(struct weir_json_writer *w);
/* `decimals` digits after the point, 0 to 9; what is not finite is written as null. */
void weir_json_write_double(struct weir_json_writer *w, double v, int decimals);
/* Milliseconds since 1970 as seconds with three decimals, as AWS does. */
void weir_json_write_seconds(struct weir_json_writer *w, uint64_t at_ms);
/* A complete value that is JSON already: a number's digits, a stored document. */
void weir_json_write_raw(struct weir_json_writer *w, struct weir_bytes json);

/* Only the escaped characters, without quotes. */
void weir_json_escape_append(struct weir_text *out, struct weir_bytes text);
