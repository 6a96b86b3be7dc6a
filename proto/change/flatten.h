/* Change records as flat lines of JSON (NDJSON), one line a change:
 *
 *   {"event_name":"MODIFY","event_time":"2016-10-04T10:19:00.000Z","orderId":"cd3b…","total":22.38}
 *
 * - event_time is UTC with the precision of the record: three decimals, or six.
 * - The attributes are those of NewImage, for REMOVE those of Keys. Where the wanted image is
 * absent (a narrower view), those of Keys. They keep the order and the digits of the record.
 * - S is a string; N a number with the digits as they came; B its base64; BOOL, NULL, L and M what
 *   they are; a set is an array, sorted: text by code points, numbers by value (equal ones by their
 *   digits), binaries by their base64.
 * - A name that this format uses itself (event_name, event_time, event_time_ms, _seq, _shard,
 *   _event_id, _table) is never overwritten: the attribute stands under "attr_" + name. So that no
 *   two names meet there, a name that is "attr_" before such a name gets another "attr_".
 * - Text is UTF-8 as it is; only quotes, backslashes and control characters are escaped.
 *
 * One pass when the members come in the order in which DynamoDB writes them; any other order gives
 * the same line with a second look at the images. No tree is built. Memory is allocated only to
 * sort large sets. Any thread. */
#pragma once
#include "base/bytes.h"
#include "base/error.h"
#include "base/text.h"

/* Zeroed is the plain form. */
struct weir_flatten_options {
    bool event_time_ms;    /* add "event_time_ms": milliseconds since 1970 */
    bool numbers_as_text;  /* numbers of more than 15 significant digits become strings, because a
                            * double does not hold them */
    bool with_old;         /* add the attributes of OldImage as "old_" + name; an attribute of the
                            * other image whose own name starts so gets "attr_" in front */
    bool remove_old_image; /* REMOVE: the attributes of OldImage instead of Keys; with_old then does
                            * not repeat them */
    bool event_id;         /* add "_event_id" and "_table", null where the record has none */
    bool table;
    /* Add "_seq" and "_shard" with this text (UTF-8), when data is not NULL. */
    struct weir_bytes seq, shard;
    bool portable; /* leave the vector instructions alone: for tests */
};

/* How many bytes the line of any record of `record_len` bytes can need, and the room that the
 * transcoder works in: record_len + a constant + six times the length of seq and shard. Saturates.
 */
size_t weir_flatten_bound(size_t record_len, const struct weir_flatten_options *options);

/* Writes the line of one record, with its \n, to `out`, which holds `capacity` bytes: TOO_BIG when
 * that is less than the bound. INVALID when it is no change record (change.h), TOO_BIG when it
 * nests too deep, NO_MEMORY; err then says at which byte, and why. After a failure the bytes at
 * `out` are undefined, and *len_out is untouched. */
enum weir_status weir_flatten(struct weir_bytes record, const struct weir_flatten_options *options,
                              uint8_t *out, size_t capacity, size_t *len_out,
                              struct weir_error *err);

/* The same, appended to a growing text; after a failure the text is as long as it was. */
enum weir_status weir_flatten_append(struct weir_bytes record,
                                     const struct weir_flatten_options *options,
                                     struct weir_text *out, struct weir_error *err);
