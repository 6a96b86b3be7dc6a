/* A change record: one change of one item of a table, as the JSON that DynamoDB writes to a Kinesis
 * data stream.
 *
 *   {"awsRegion":"us-east-1","eventID":"4150051d-…","eventName":"MODIFY","userIdentity":null,
 *    "recordFormat":"application/json","tableName":"Orders","dynamodb":{
 *      "ApproximateCreationDateTime":1473023700000,
 *      "Keys":{"orderId":{"S":"2e7a…"}},
 *      "NewImage":{"orderId":{"S":"2e7a…"},"total":{"N":"143.27"},…},
 *      "OldImage":{…},"SizeBytes":421},
 *    "eventSource":"aws:dynamodb"}
 *
 * Members may come in any order. Required are eventName, dynamodb, and in it
 * ApproximateCreationDateTime and Keys; members with other names may hold any JSON. A record is
 * looked through whole, its images too: what is accepted here is well-formed to the last byte.
 *
 * An image is an object of attributes; an attribute value is an object of one member, whose name is
 * its type: S N B SS NS BS M L NULL BOOL. Nesting goes to WEIR_CHANGE_DEPTH_MAX; a number is a
 * decimal number by JSON's grammar, at most WEIR_CHANGE_NUMBER_MAX characters and an exponent of at
 * most five digits; B is padded base64; sets are not empty. An attribute that an image names twice
 * is the reader's business: every reader here sees both.
 *
 * Nothing is allocated, everything points into the record. Any thread. */
#pragma once
#include "base/bytes.h"
#include "base/error.h"
#include "base/text.h"
#include "json/reader.h"

#define WEIR_CHANGE_DEPTH_MAX 63   /* M and L around an attribute value; DynamoDB allows 32 */
#define WEIR_CHANGE_NUMBER_MAX 512 /* characters; DynamoDB's own have up to some 170 */

enum weir_change_event {
    WEIR_CHANGE_INSERT,
    WEIR_CHANGE_MODIFY,
    WEIR_CHANGE_REMOVE,
};

/* "INSERT", static. */
const char *weir_change_event_name(enum weir_change_event event);

struct weir_change_info {
    enum weir_change_event event;
    bool microseconds; /* the precision that the record states */
    uint64_t created_at_us;
    uint64_t created_at_ms; /* the same, rounded down */
    /* Between the quotes, as it stands (weir_json_text_equal() compares); data is NULL when absent.
     */
    struct weir_bytes table, event_id;
    /* From brace to brace; data is NULL when absent. Keys are always there. */
    struct weir_bytes keys, new_image, old_image;
};

/* What a record says, in one pass. INVALID when it is no change record, TOO_BIG when it nests too
 * deep; err then says at which byte, and why. */
enum weir_status weir_change_peek(struct weir_bytes record, struct weir_change_info *info_out,
                                  struct weir_error *err);

enum weir_change_type {
    WEIR_CHANGE_S,
    WEIR_CHANGE_N,
    WEIR_CHANGE_B,
    WEIR_CHANGE_BOOL,
    WEIR_CHANGE_NULL,
    WEIR_CHANGE_L,
    WEIR_CHANGE_M,
    WEIR_CHANGE_SS,
    WEIR_CHANGE_NS,
    WEIR_CHANGE_BS,
};

struct weir_change_attribute {
    enum weir_change_type type;
    struct weir_bytes name;  /* between the quotes, as it stands */
    struct weir_bytes value; /* S, N, B: between the quotes, as it stands; others: the JSON value */
};

/* Walks the attributes of an image, in their order. */
struct weir_change_attributes {
    struct weir_json_reader reader; /* private */
};

void weir_change_attributes_init(struct weir_change_attributes *walk, struct weir_bytes image);
/* END after the last; INVALID or TOO_BIG when the bytes are no image (never for one that a peek
 * gave), and so on every later call. */
enum weir_status weir_change_attributes_next(struct weir_change_attributes *walk,
                                             struct weir_change_attribute *out);

/* The first attribute of that name. NOT_FOUND; INVALID or TOO_BIG as above. */
enum weir_status weir_change_attribute(struct weir_bytes image, struct weir_bytes name,
                                       struct weir_change_attribute *out);

/* Appends the value as text: S without escapes, N its digits, B its base64, BOOL and NULL the word,
 * others their DynamoDB JSON. NO_MEMORY. */
enum weir_status weir_change_attribute_text(const struct weir_change_attribute *attribute,
                                            struct weir_text *out);
