/* Objects as files: made elsewhere in the same file system, renamed into place. */
#include "base/list.h"
#include "sink/destination.h"
#include "sink/part.h"
#include <stdio.h>
#include <stdlib.h>

struct directory {
    struct weir_destination base;
    struct weir_fs *fs;
    char synced[512]; /* the directory whose name is durable already */
};

/* Makes the directories above `name` and their names durable. */
static enum weir_status
make_parents(struct directory *d, const char *name)
{
    char path[512], above[512] = "";
    const char *last = strrchr(name, '/');
    if (!last)
        return WEIR_OK;
    size_t len = (size_t)(last - name);
    if (len >= sizeof path)
        return WEIR_TOO_BIG;
    if (strncmp(d->synced, name, len) == 0 && !d->synced[len])
        return WEIR_OK;
    for (size_t i = 1; i <= len; i++) {
        if (name[i] != '/')
            continue;
        memcpy(path, name, i);
        path[i] = '\0';
        enum weir_status st = weir_fs_mkdir(d->fs, path);
        if (!st)
            st = weir_fs_sync_directory(d->fs, above);
        if (st)
            return st;
        memcpy(above, path, i + 1);
    }
    memcpy(d->synced, name, len);
    d->synced[len] = '\0';
    return WEIR_OK;
}

static enum weir_status
sync_parent(struct directory *d, const char *path)
{
    char above[512] = "";
    const char *last = strrchr(path, '/');
    if (last)
        snprintf(above, sizeof above, "%.*s", (int)(last - path), path);
    return weir_fs_sync_directory(d->fs, above);
}

static enum weir_status
look(struct weir_destination *base, const struct weir_object *object, struct weir_error *err)
{
    struct directory *d = WEIR_CONTAINER(base, struct directory, base);
    uint64_t size;
    char sha256[65];
    enum weir_status st = weir_part_hash(d->fs, object->name, &size, sha256);
    if (st)
        return weir_fail(err, st, "cannot read '%s': %s", object->name, weir_status_text(st));
    if (size != object->size || strcmp(sha256, object->sha256) != 0)
        return weir_fail(err, WEIR_EXISTS, "'%s' is there with other contents", object->name);
    return WEIR_OK;
}

static enum weir_status
publish(struct weir_destination *base, struct weir_fs *fs, const char *part,
        const struct weir_object *object, struct weir_error *err)
{
    struct directory *d = WEIR_CONTAINER(base, struct directory, base);
    struct weir_file *file;
    if (fs != d->fs)
        return weir_fail(err, WEIR_INVALID, "'%s' lies outside the directory", part);
    enum weir_status st = weir_fs_open(d->fs, object->name, WEIR_OPEN_READ, &file);
    if (!st) {
        weir_file_close(file);
        st = look(base, object, err);
        if (st)
            return st;
        st = sync_parent(d, object->name);
    } else if (st == WEIR_NOT_FOUND) {
        st = make_parents(d, object->name);
        if (!st)
            st = weir_fs_rename(d->fs, part, object->name);
        if (!st)
            st = sync_parent(d, object->name);
        if (!st)
            st = sync_parent(d, part);
    }
    if (st)
        return weir_fail(err, st, "cannot publish '%s': %s", object->name, weir_status_text(st));
    return WEIR_OK;
}

static void
close_directory(struct weir_destination *base)
{
    free(WEIR_CONTAINER(base, struct directory, base));
}

static const struct weir_destination_ops ops = {publish, look, close_directory};

enum weir_status
weir_destination_directory(struct weir_fs *fs, struct weir_destination **out)
{
    struct directory *d = calloc(1, sizeof *d);
    if (!d)
        return WEIR_NO_MEMORY;
    d->base.ops = &ops;
    d->fs = fs;
    *out = &d->base;
    return WEIR_OK;
}
