/* The file: a YAML mapping of setting names to scalars; `listen` may be a list. Everything else of
 * YAML (anchors, tags, nested mappings, several documents) is refused, with the line. */
#include "main/settings.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#define FILE_BYTES_MAX (1024 * 1024)

struct reader {
    yaml_parser_t parser;
    yaml_event_t event;
    bool has_event;
    const char *path;
    struct weir_error *err;
    bool seen[WEIR_SETTING_COUNT];
};

static enum weir_status
next(struct reader *r)
{
    if (r->has_event)
        yaml_event_delete(&r->event);
    r->has_event = false;
    if (!yaml_parser_parse(&r->parser, &r->event)) {
        size_t line = r->parser.error == YAML_READER_ERROR ? r->parser.mark.line
                                                           : r->parser.problem_mark.line;
        return weir_fail(r->err,
                         r->parser.error == YAML_MEMORY_ERROR ? WEIR_NO_MEMORY : WEIR_INVALID,
                         "'%s' line %zu: %s", r->path, line + 1,
                         r->parser.problem ? r->parser.problem : "no YAML");
    }
    r->has_event = true;
    return WEIR_OK;
}

static size_t
line_of(const struct reader *r)
{
    return r->event.start_mark.line + 1;
}

static bool
is_plain(const struct reader *r)
{
    return r->event.type == YAML_SCALAR_EVENT && !r->event.data.scalar.anchor &&
           !r->event.data.scalar.tag;
}

static struct weir_bytes
scalar(const struct reader *r)
{
    return weir_bytes(r->event.data.scalar.value, r->event.data.scalar.length);
}

/* The list's items, joined by commas. */
static enum weir_status
read_list(struct reader *r, enum weir_setting_id id, struct weir_text *joined)
{
    const char *name = weir_setting_about[id].name;
    for (;;) {
        enum weir_status st = next(r);
        if (st)
            return st;
        if (r->event.type == YAML_SEQUENCE_END_EVENT)
            return WEIR_OK;
        if (!is_plain(r) || memchr(scalar(r).data, ',', scalar(r).len))
            return weir_fail(r->err, WEIR_INVALID, "'%s' line %zu: '%s' must be a list of texts",
                             r->path, line_of(r), name);
        if (joined->len > 0)
            weir_text_puts(joined, ",");
        weir_text_append(joined, scalar(r));
    }
}

/* The event is a setting's name. */
static enum weir_status
read_setting(struct reader *r, struct weir_settings *s)
{
    size_t line = line_of(r);
    if (!is_plain(r))
        return weir_fail(r->err, WEIR_INVALID, "'%s' line %zu: a setting's name must stand here",
                         r->path, line);
    struct weir_bytes name = scalar(r);
    enum weir_setting_id id = weir_setting_find(name);
    if (id == WEIR_SETTING_COUNT)
        return weir_fail(r->err, WEIR_INVALID, "'%s' line %zu: unknown setting '%.*s'", r->path,
                         line, (int)name.len, (const char *)name.data);
    const char *known = weir_setting_about[id].name;
    if (r->seen[id])
        return weir_fail(r->err, WEIR_INVALID, "'%s' line %zu: '%s' stands here a second time",
                         r->path, line, known);
    r->seen[id] = true;

    enum weir_status st = next(r);
    if (st)
        return st;
    char from[300];
    snprintf(from, sizeof from, "'%.255s' line %zu", r->path, line_of(r));
    if (is_plain(r)) {
        bool empty = scalar(r).len == 0 && r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        if (empty)
            return weir_fail(r->err, WEIR_INVALID, "%s: '%s' has no value", from, known);
        return weir_settings_set(s, id, scalar(r), from, r->err);
    }
    if (r->event.type != YAML_SEQUENCE_START_EVENT || weir_setting_about[id].kind != WEIR_KIND_URLS)
        return weir_fail(r->err, WEIR_INVALID, "%s: '%s' must be one value", from, known);
    struct weir_text joined = {0};
    st = read_list(r, id, &joined);
    if (!st && joined.failed)
        st = weir_fail(r->err, WEIR_NO_MEMORY, "%s: out of memory", from);
    if (!st)
        st = weir_settings_set(s, id, weir_bytes(joined.data ? joined.data : "", joined.len), from,
                               r->err);
    weir_text_fini(&joined);
    return st;
}

static enum weir_status
read_document(struct reader *r, struct weir_settings *s)
{
    bool in_mapping = false;
    for (int documents = 0;;) {
        enum weir_status st = next(r);
        if (st)
            return st;
        switch (r->event.type) {
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
            continue;
        case YAML_STREAM_END_EVENT:
            return WEIR_OK;
        case YAML_MAPPING_END_EVENT:
            in_mapping = false;
            continue;
        case YAML_DOCUMENT_START_EVENT:
            if (++documents > 1)
                return weir_fail(r->err, WEIR_INVALID, "'%s' line %zu: a second document", r->path,
                                 line_of(r));
            continue;
        case YAML_MAPPING_START_EVENT:
            if (!in_mapping && !r->event.data.mapping_start.anchor) {
                in_mapping = true;
                continue;
            }
            break;
        case YAML_SCALAR_EVENT:
            /* A file of comments alone is one empty scalar. */
            if (!in_mapping && is_plain(r) && scalar(r).len == 0)
                continue;
            break;
        default:
            break;
        }
        if (!in_mapping)
            return weir_fail(r->err, WEIR_INVALID, "'%s' line %zu: must be lines of 'name: value'",
                             r->path, line_of(r));
        st = read_setting(r, s);
        if (st)
            return st;
    }
}

enum weir_status
weir_settings_read_file(struct weir_settings *s, const char *path, struct weir_error *err)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return weir_fail(err, weir_status_from_errno(errno), "cannot open '%s': %s", path,
                         strerror(errno));
    struct reader r = {.path = path, .err = err};
    enum weir_status st;
    if (fseek(file, 0, SEEK_END) == 0 && ftell(file) > FILE_BYTES_MAX) {
        st = weir_fail(err, WEIR_TOO_BIG, "'%s' is larger than %d bytes", path, FILE_BYTES_MAX);
        goto done;
    }
    rewind(file);
    if (!yaml_parser_initialize(&r.parser)) {
        st = weir_fail(err, WEIR_NO_MEMORY, "cannot read '%s': out of memory", path);
        goto done;
    }
    yaml_parser_set_input_file(&r.parser, file);
    st = read_document(&r, s);
    if (r.has_event)
        yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
done:
    fclose(file);
    return st;
}
