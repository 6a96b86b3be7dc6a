#include "key.h"
#include "base/limits.h"
#include "record/hash_key.h"
#include "json/reader.h"
#include <stdlib.h>

/* Goes from the member that `path` begins with to the value at its end; the value's first token is
 * then the reader's current one. */
static enum weir_status
follow(struct weir_json_reader *r, const char *path, struct weir_error *err)
{
    for (const char *part = path; *part;) {
        size_t len = strcspn(part, ".");
        struct weir_bytes name = weir_bytes(part, len);
        if (r->token != WEIR_JSON_OBJECT)
            return weir_fail(err, WEIR_NOT_FOUND, "no object at '%.*s'",
                             (int)(part - path + (long)len), path);
        bool found = false;
        while (!found && weir_json_next(r) == WEIR_JSON_NAME) {
            found = weir_json_text_equal(r->text, name);
            if (!found)
                weir_json_skip(r);
        }
        if (r->token == WEIR_JSON_ERROR)
            return weir_json_fail(r, err, "expected a member");
        if (!found)
            return weir_fail(err, WEIR_NOT_FOUND, "no member '%.*s'",
                             (int)(part - path + (long)len), path);
        weir_json_next(r);
        part += len + (part[len] == '.');
    }
    return WEIR_OK;
}

static enum weir_status
check_rest(struct weir_json_reader *r, struct weir_error *err)
{
    while (weir_json_next(r) != WEIR_JSON_END)
        if (r->token == WEIR_JSON_ERROR)
            return weir_json_fail(r, err, "expected JSON");
    return WEIR_OK;
}

/* {"S":"x"}, {"N":"1"}, {"B":"aGk="}: x, 1, aGk=. Anything else: the text of the value. */
static enum weir_status
value_text(struct weir_bytes raw, struct weir_text *out, struct weir_error *err)
{
    struct weir_json_reader r;
    weir_json_reader_init(&r, raw, 64);
    if (weir_json_next(&r) == WEIR_JSON_OBJECT && weir_json_next(&r) == WEIR_JSON_NAME &&
        (weir_json_is(&r, "S") || weir_json_is(&r, "N") || weir_json_is(&r, "B")) &&
        weir_json_next(&r) == WEIR_JSON_STRING) {
        struct weir_json_reader value = r;
        if (weir_json_next(&r) == WEIR_JSON_OBJECT_END)
            return weir_json_append(&value, out);
    }
    if (r.token == WEIR_JSON_ERROR)
        return weir_json_fail(&r, err, "expected JSON");
    weir_text_append(out, raw);
    return WEIR_OK;
}

enum weir_status
key_from_path(struct weir_bytes line, const char *path, struct weir_text *out,
              struct weir_error *err)
{
    struct weir_json_reader r;
    weir_json_reader_init(&r, line, 64);
    weir_json_next(&r);
    enum weir_status st = r.token == WEIR_JSON_ERROR ? weir_json_fail(&r, err, "expected JSON")
                                                     : follow(&r, path, err);
    if (st)
        return st;
    weir_text_clear(out);
    if (r.token == WEIR_JSON_STRING) {
        st = weir_json_append(&r, out);
    } else if (r.token == WEIR_JSON_OBJECT || r.token == WEIR_JSON_ARRAY) {
        if (!weir_json_skip(&r))
            return weir_json_fail(&r, err, "expected JSON");
        st = value_text(r.text, out, err);
    } else {
        weir_text_append(out, r.text);
    }
    if (st)
        return st;
    st = check_rest(&r, err);
    if (st)
        return st;
    if (out->failed)
        return weir_fail(err, WEIR_NO_MEMORY, "out of memory");
    if (out->len == 0)
        return weir_fail(err, WEIR_INVALID, "the key at '%s' is empty", path);
    if (weir_utf8_count(weir_bytes(out->data, out->len)) > WEIR_KEY_CHARACTERS_MAX)
        return weir_fail(err, WEIR_TOO_BIG, "the key at '%s' has more than %d characters", path,
                         WEIR_KEY_CHARACTERS_MAX);
    return WEIR_OK;
}

struct member {
    struct weir_bytes name, value;
};

static int
by_name(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    size_t len = x->name.len < y->name.len ? x->name.len : y->name.len;
    int order = memcmp(x->name.data, y->name.data, len);
    return order ? order : (x->name.len > y->name.len) - (x->name.len < y->name.len);
}

enum weir_status
key_from_change(struct weir_bytes line, struct weir_text *out, struct weir_error *err)
{
    struct weir_json_reader r;
    weir_json_reader_init(&r, line, 128);
    weir_json_next(&r);
    enum weir_status st = r.token == WEIR_JSON_ERROR ? weir_json_fail(&r, err, "expected JSON")
                                                     : follow(&r, "dynamodb.Keys", err);
    if (st)
        return st;
    if (r.token != WEIR_JSON_OBJECT)
        return weir_fail(err, WEIR_INVALID, "'dynamodb.Keys' is no object");
    struct member members[4];
    size_t count = 0;
    while (weir_json_next(&r) == WEIR_JSON_NAME) {
        if (count == sizeof members / sizeof *members)
            return weir_fail(err, WEIR_INVALID, "'dynamodb.Keys' has more than %zu members", count);
        members[count].name = r.text;
        weir_json_skip(&r);
        members[count++].value = r.text;
    }
    if (r.token == WEIR_JSON_ERROR)
        return weir_json_fail(&r, err, "expected a member");
    st = check_rest(&r, err);
    if (st)
        return st;
    if (count == 0)
        return weir_fail(err, WEIR_INVALID, "'dynamodb.Keys' is empty");
    qsort(members, count, sizeof *members, by_name);
    weir_text_clear(out);
    for (size_t i = 0; i < count; i++) {
        weir_text_append(out, members[i].name);
        weir_text_puts(out, "=");
        st = value_text(members[i].value, out, err);
        if (st)
            return st;
        weir_text_puts(out, "\n");
    }
    if (out->failed)
        return weir_fail(err, WEIR_NO_MEMORY, "out of memory");
    weir_u128 hash = weir_hash_key(weir_bytes(out->data, out->len));
    weir_text_clear(out);
    weir_text_printf(out, "%016lx%016lx", (unsigned long)(hash >> 64), (unsigned long)hash);
    return WEIR_OK;
}
