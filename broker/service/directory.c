/* The file `format`: what kind of directory this is, and what can never change in it.
 *
 *     weir data directory
 *     version 1
 *     owners 2
 *
 * It is made first, before any journal: a directory without it that has journals was damaged, and
 * is not written to. */
#include "base/text.h"
#include "service/inside.h"
#include <stdio.h>

#define FORMAT_VERSION 1
#define FORMAT_BYTES_MAX 256

struct traces {
    bool data;
};

static void
look_for_data(void *arg, const struct weir_fs_entry *entry)
{
    struct traces *traces = arg;
    if (strncmp(entry->name, "journal-", 8) == 0 || strcmp(entry->name, "meta.db") == 0)
        traces->data = true;
}

static enum weir_status
make(struct weir_fs *fs, uint32_t owners, struct weir_error *err)
{
    struct traces traces = {0};
    enum weir_status st = weir_fs_list(fs, "", look_for_data, &traces);
    if (st)
        return weir_fail(err, st, "cannot list the data directory: %s", weir_status_text(st));
    if (traces.data)
        return weir_fail(err, WEIR_DAMAGED,
                         "the data directory holds data, but its file 'format' is missing");

    char text[FORMAT_BYTES_MAX];
    int len = snprintf(text, sizeof text, "weir data directory\nversion %d\nowners %u\n",
                       FORMAT_VERSION, owners);
    struct weir_file *file = NULL;
    st = weir_fs_open(fs, "format.new", WEIR_OPEN_WRITE | WEIR_OPEN_CREATE | WEIR_OPEN_TRUNCATE,
                      &file);
    if (!st)
        st = weir_file_pwrite(file, text, (size_t)len, 0);
    if (!st)
        st = weir_file_datasync(file);
    weir_file_close(file);
    if (!st)
        st = weir_fs_rename(fs, "format.new", "format");
    if (!st)
        st = weir_fs_sync_directory(fs, "");
    return st ? weir_fail(err, st, "cannot make 'format': %s", weir_status_text(st)) : WEIR_OK;
}

/* "NAME NUMBER\n" at the front of the text, which moves on. */
static bool
take_line(struct weir_bytes *text, const char *name, uint64_t *out)
{
    size_t name_len = strlen(name);
    const uint8_t *end = memchr(text->data, '\n', text->len);
    if (!end)
        return false;
    struct weir_bytes line = weir_bytes(text->data, (size_t)(end - text->data));
    *text = weir_bytes(end + 1, text->len - line.len - 1);
    return line.len > name_len && memcmp(line.data, name, name_len) == 0 &&
           weir_parse_u64(weir_bytes(line.data + name_len, line.len - name_len), out) == WEIR_OK;
}

static enum weir_status
parse(struct weir_bytes text, uint32_t *owners, struct weir_error *err)
{
    static const char first[] = "weir data directory\n";
    uint64_t version, count;
    if (text.len < sizeof first - 1 || memcmp(text.data, first, sizeof first - 1) != 0)
        return weir_fail(err, WEIR_INVALID, "'format' is not that of a weir data directory");
    text = weir_bytes(text.data + sizeof first - 1, text.len - (sizeof first - 1));
    if (!take_line(&text, "version ", &version))
        return weir_fail(err, WEIR_DAMAGED, "'format' has no version");
    if (version != FORMAT_VERSION)
        return weir_fail(err, WEIR_UNSUPPORTED,
                         "the data directory has version %llu, this broker knows version %d",
                         (unsigned long long)version, FORMAT_VERSION);
    if (!take_line(&text, "owners ", &count) || count < 1 || count > WEIR_OWNERS_MAX || text.len)
        return weir_fail(err, WEIR_DAMAGED, "'format' has no sound count of owners");
    *owners = (uint32_t)count;
    return WEIR_OK;
}

enum weir_status
service_read_format(struct weir_fs *fs, uint32_t *owners, struct weir_error *err)
{
    struct weir_file *file;
    enum weir_status st = weir_fs_open(fs, "format", WEIR_OPEN_READ, &file);
    if (st == WEIR_NOT_FOUND)
        return make(fs, *owners, err);
    if (st)
        return weir_fail(err, st, "cannot open 'format': %s", weir_status_text(st));
    uint8_t text[FORMAT_BYTES_MAX];
    size_t len;
    st = weir_file_pread(file, text, sizeof text, 0, &len);
    weir_file_close(file);
    if (st)
        return weir_fail(err, st, "cannot read 'format': %s", weir_status_text(st));
    return parse(weir_bytes(text, len), owners, err);
}

static void
look_for_catalog(void *arg, const struct weir_fs_entry *entry)
{
    bool *there = arg;
    *there |= strcmp(entry->name, "meta.db") == 0;
}

enum weir_status
service_has_catalog(struct weir_fs *fs, bool *out)
{
    *out = false;
    return weir_fs_list(fs, "", look_for_catalog, out);
}
