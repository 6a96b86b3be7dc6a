/* The one strict reader of JSON (RFC 8259): gives one token after the other out of bytes that stay
 * where they are.
 *
 * Strict means: UTF-8 throughout, no trailing commas, no comments, no bare control characters, no
 * halves of surrogate pairs, nothing after the value, nesting to a limit. Numbers stay text.
 * Members that occur twice are the caller's business. It allocates nothing.
 *
 *     weir_json_reader_init(&r, body, 16);
 *     if (weir_json_next(&r) != WEIR_JSON_OBJECT)
 *         return weir_json_fail(&r, err, "expected an object");
 *     while (weir_json_next(&r) == WEIR_JSON_NAME) {
 *         if (weir_json_is(&r, "StreamName") && weir_json_next(&r) == WEIR_JSON_STRING)
 *             ...
 *         else
 *             weir_json_skip(&r);
 *     }
 *     if (r.token != WEIR_JSON_OBJECT_END || weir_json_next(&r) != WEIR_JSON_END)
 *         return weir_json_fail(&r, err, "expected an object");
 *
 * Threads: one at a time per reader. */
#pragma once
#include "base/bytes.h"
#include "base/error.h"
#include "base/text.h"
#include "json/scan.h"

#define WEIR_JSON_DEPTH_MAX 256

enum weir_json_token {
    WEIR_JSON_END, /* the value is complete and only blanks followed */
    WEIR_JSON_ERROR,
    WEIR_JSON_OBJECT, /* { */
    WEIR_JSON_OBJECT_END,
    WEIR_JSON_ARRAY, /* [ */
    WEIR_JSON_ARRAY_END,
    WEIR_JSON_NAME, /* of a member; its value follows */
    WEIR_JSON_STRING,
    WEIR_JSON_NUMBER,
    WEIR_JSON_TRUE,
    WEIR_JSON_FALSE,
    WEIR_JSON_NULL,
};

struct weir_json_reader {
    /* The token that weir_json_next() gave last. */
    enum weir_json_token token;
    bool escaped;            /* NAME, STRING: there are backslashes in `text` */
    unsigned depth;          /* containers open around the next token */
    struct weir_bytes text;  /* NAME, STRING: between the quotes, as it stands; others: all of it */
    size_t at;               /* its first byte; the byte at fault after ERROR */
    const char *reason;      /* after ERROR, static: "expected ':'" */
    enum weir_status status; /* after ERROR: INVALID, or TOO_BIG when it nests too deep */

    /* private */
    uint8_t expects;
    unsigned depth_max;
    const uint8_t *begin, *p, *end;
    size_t bad_utf8_at;
    weir_scan_fn *scan;
    uint64_t is_array[WEIR_JSON_DEPTH_MAX / 64]; /* one bit per open container */
};

/* `bytes` are kept: they must outlive the reader. `depth_max` is at most WEIR_JSON_DEPTH_MAX. */
void weir_json_reader_init(struct weir_json_reader *r, struct weir_bytes bytes, unsigned depth_max);

/* The next token, also in r->token. END and ERROR stay. */
enum weir_json_token weir_json_next(struct weir_json_reader *r);

/* Passes over the rest of the current value, so that the next token is what follows it: after NAME
 * its value, after OBJECT or ARRAY up to the matching end, else nothing. r->text is then the whole
 * value as it stands (a string with its quotes). False when that met an error. */
bool weir_json_skip(struct weir_json_reader *r);

/* The failure as a status with text: "byte 17: expected ':'" when the reader met one, else "byte
 * 17: WANTED", INVALID, about the current token. */
enum weir_status weir_json_fail(const struct weir_json_reader *r, struct weir_error *err,
                                const char *wanted);

/* What NAME or STRING says is exactly this. */
bool weir_json_is(const struct weir_json_reader *r, const char *text);
/* The same for the text between the quotes of a string that some reader has accepted. */
bool weir_json_text_equal(struct weir_bytes raw, struct weir_bytes plain);
/* Takes the escapes out of such text; `out` has room for raw.len bytes and may be raw.data. Returns
 * the length. */
size_t weir_json_unescape(struct weir_bytes raw, uint8_t *out);
/* Appends what NAME or STRING says. NO_MEMORY. */
enum weir_status weir_json_append(const struct weir_json_reader *r, struct weir_text *out);

/* NUMBER as an integer. INVALID when it has a fraction or exponent, or a sign in the first; TOO_BIG
 * when it does not fit. */
enum weir_status weir_json_u64(const struct weir_json_reader *r, uint64_t *out);
enum weir_status weir_json_i64(const struct weir_json_reader *r, int64_t *out);

/* Where the number that starts at p ends by JSON's grammar; p itself when there is none. Whether
 * what follows may follow is not looked at. */
const uint8_t *weir_json_number_end(const uint8_t *p, const uint8_t *end);
