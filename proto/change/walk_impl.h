/* What the walk over a record shares with the files around it. Not for other modules. */
#pragma once
#include "change/change.h"
#include "change/flatten.h"

/* Bytes of a line that do not come from the record: braces, the names and values of the metadata.
 */
#define WALK_HEADER_MAX 256

enum walk_image {
    WALK_KEYS,
    WALK_NEW,
    WALK_OLD,
    WALK_IMAGES,
};

/* The members of a record that the walk knows. */
enum walk_field {
    EVENT_NAME = 1 << 0,
    EVENT_ID = 1 << 1,
    TABLE = 1 << 2,
    DYNAMODB = 1 << 3,
    CREATED_AT = 1 << 4,
    PRECISION = 1 << 5,
    KEYS = 1 << 6,
    NEW_IMAGE = 1 << 7,
    OLD_IMAGE = 1 << 8,
};

#define WALK_TIME_MAX_US 253402300799999999u /* 9999-12-31T23:59:59.999999Z */

struct walk {
    const uint8_t *begin, *end;
    const struct weir_flatten_options *options; /* NULL: no line is made */

    uint8_t *out_begin, *out; /* the line; room as weir_flatten_bound() says */

    /* What was found so far. */
    unsigned seen; /* enum walk_field */
    struct weir_change_info info;
    uint64_t created_at; /* in the record's unit */
    const uint8_t *created_at_at;
    struct weir_bytes images[WALK_IMAGES];

    /* What of the line is written. */
    bool has_source, has_old;
    bool is_stale; /* the header was written before something that changes it was read */

    bool escaped; /* a string with escapes was passed since this was cleared */

    /* The failure. */
    enum weir_status status;
    const uint8_t *at;
    const char *reason;
};

typedef bool walk_fn(struct walk *w);

/* Looks through the record at w->begin, and writes its line at w->out when w->options is set.
 * False: status, at and reason say why. */
walk_fn weir_change_walk_portable;
walk_fn weir_change_walk_avx2;

/* Records the failure; always NULL. */
const uint8_t *weir_change_walk_fail(struct walk *w, enum weir_status st, const uint8_t *at,
                                     const char *reason);
/* Finishes w's failure as the text of err. */
enum weir_status weir_change_walk_error(const struct walk *w, struct weir_error *err);

/* The line up to its first attribute, at w->out. Everything it tells has been read. */
void weir_change_write_header(struct walk *w);
/* Whether an attribute of this name (as it stands in the line) must not keep it. */
bool weir_change_name_is_reserved(struct weir_bytes name, bool with_old);

/* Padded base64, in a string as it stands in the record. */
bool weir_change_base64_is_valid(struct weir_bytes raw);
/* A number that DynamoDB JSON can hold: JSON's grammar and our limits. NULL when it is one, else
 * the reason. */
const char *weir_change_number_fault(struct weir_bytes text);
/* Digits from the first to the last that is not zero. */
size_t weir_change_significant_digits(struct weir_bytes number);

/* Sets, as they stand in the line: members with commas between, text in quotes. */
int weir_change_member_compare(enum weir_change_type set, struct weir_bytes a, struct weir_bytes b);
/* Sorts `count` members in place. NO_MEMORY. */
enum weir_status weir_change_set_sort(enum weir_change_type set, uint8_t *members, size_t len,
                                      size_t count);
