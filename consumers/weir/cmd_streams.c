/* Streams: list, create, describe, delete, retention, split, merge, update-shard-count. */
#include "command.h"
#include <stdio.h>

/* Connects, does one thing, and turns its answer into an exit status. */
static enum weir_exit
with_client(struct args *a,
            enum weir_status (*work)(struct args *a, struct weir_client *c, struct weir_error *err))
{
    struct weir_client *client = connect_or_complain(a);
    if (!client)
        return EXIT_NO_BROKER;
    struct weir_error err = {0};
    enum weir_status st = work(a, client, &err);
    weir_client_close(client);
    if (!st)
        return EXIT_DONE;
    if (!err.status)
        err.status = st;
    return failed(a, &err);
}

struct listing {
    struct output out;
    bool json;
};

static void
list_one(void *arg, const char *name)
{
    struct listing *l = arg;
    if (l->json)
        weir_json_write_text(&l->out.json, name);
    else
        puts(name);
}

static enum weir_status
do_list(struct args *a, struct weir_client *c, struct weir_error *err)
{
    struct listing l = {.json = a->json};
    output_begin(&l.out);
    weir_json_begin_array(&l.out.json);
    enum weir_status st = weir_list_streams(c, list_one, &l, err);
    weir_json_end_array(&l.out.json);
    if (!st && a->json && output_emit(&l.out))
        return WEIR_IO;
    weir_text_fini(&l.out.text);
    return st;
}

enum weir_exit
run_list(struct args *a)
{
    return with_client(a, do_list);
}

const struct option options_create[] = {
    {"shards", NUMBER, "N", "1", "shards to begin with, 1 to 10000"},
    {"retention", DURATION, "TIME", "24h", "how long records are kept, 1h to 3650d"},
    {"retention-size", SIZE, "SIZE", "no limit",
     "how many bytes each shard keeps; whole batches, so up to one more"},
    {"record-max", SIZE, "SIZE", "1MiB", "largest record, data and key, to 10MiB"},
    {"if-missing", FLAG, NULL, NULL, "a stream that is there already is not an error"},
    {0},
};

static enum weir_status
do_create(struct args *a, struct weir_client *c, struct weir_error *err)
{
    struct weir_stream_options o = {.name = a->operand[0]};
    uint64_t shards = 1;
    if (!args_number(a, "shards", UINT32_MAX, &shards) ||
        !args_duration(a, "retention", &o.retention_ms) ||
        !args_size(a, "retention-size", &o.retention_bytes) ||
        !args_size(a, "record-max", &o.record_bytes_max))
        return WEIR_INVALID;
    o.shard_count = (uint32_t)shards;
    if (!shards)
        return weir_fail(err, WEIR_INVALID, "--shards is 0: a stream has at least one");
    enum weir_status st = weir_create_stream(c, &o, err);
    if (st == WEIR_EXISTS && args_has(a, "if-missing"))
        return WEIR_OK;
    return st;
}

enum weir_exit
run_create(struct args *a)
{
    uint64_t n;
    if (!args_number(a, "shards", 10000, &n) || !args_duration(a, "retention", &n) ||
        !args_size(a, "retention-size", &n) || !args_size(a, "record-max", &n))
        return EXIT_USAGE;
    return with_client(a, do_create);
}

static const char *const status_names[] = {"CREATING", "ACTIVE", "UPDATING", "DELETING"};

static void
describe_json(const struct weir_stream_description *d)
{
    struct output o;
    output_begin(&o);
    weir_json_begin_object(&o.json);
    member_text(&o, "name", d->name);
    member_text(&o, "status", status_names[d->status]);
    member_moment(&o, "created", d->created_ms);
    member_u64(&o, "retention_ms", d->retention_ms);
    member_u64(&o, "retention_bytes", d->retention_bytes);
    member_u64(&o, "record_bytes_max", d->record_bytes_max);
    member_u64(&o, "open_shards", d->open_shards);
    weir_json_write_name(&o.json, "shards");
    weir_json_begin_array(&o.json);
    for (uint32_t i = 0; i < d->shard_count; i++) {
        const struct weir_shard_description *s = &d->shards[i];
        weir_json_begin_object(&o.json);
        member_u64(&o, "index", s->index);
        member_text(&o, "id", s->id);
        member_bool(&o, "open", s->closed_ms == 0);
        member_text(&o, "hash_low", s->hash_low);
        member_text(&o, "hash_high", s->hash_high);
        weir_json_write_name(&o.json, "parent");
        weir_json_write_i64(&o.json, s->parent);
        weir_json_write_name(&o.json, "adjacent_parent");
        weir_json_write_i64(&o.json, s->adjacent_parent);
        member_moment(&o, "created", s->created_ms);
        member_moment(&o, "closed", s->closed_ms);
        member_u64(&o, "oldest", s->oldest);
        member_u64(&o, "next", s->next);
        member_moment(&o, "oldest_at", s->oldest_at_ms);
        member_moment(&o, "latest_at", s->latest_at_ms);
        member_u64(&o, "bytes", s->bytes);
        weir_json_end_object(&o.json);
    }
    weir_json_end_array(&o.json);
    weir_json_end_object(&o.json);
    (void)output_emit(&o);
}

static enum weir_status
do_describe(struct args *a, struct weir_client *c, struct weir_error *err)
{
    struct weir_stream_description *d;
    enum weir_status st = weir_describe_stream(c, a->operand[0], &d, err);
    if (st)
        return st;
    if (a->json) {
        describe_json(d);
    } else {
        printf("%s  %s  created %s\n", d->name, status_names[d->status],
               moment_text(d->created_ms));
        printf("retention %s", duration_text(d->retention_ms));
        if (d->retention_bytes)
            printf(", at most %s a shard", size_text(d->retention_bytes));
        printf("; records up to %s; %u open shards of %u\n\n", size_text(d->record_bytes_max),
               d->open_shards, d->shard_count);
        printf("%-21s %-7s %-12s %14s %14s %11s  %s\n", "SHARD", "STATE", "PARENTS", "OLDEST",
               "NEXT", "STORED", "LATEST RECORD");
        for (uint32_t i = 0; i < d->shard_count; i++) {
            const struct weir_shard_description *s = &d->shards[i];
            char parents[32] = "-";
            if (s->adjacent_parent >= 0)
                snprintf(parents, sizeof parents, "%d, %d", s->parent, s->adjacent_parent);
            else if (s->parent >= 0)
                snprintf(parents, sizeof parents, "%d", s->parent);
            printf("%-21s %-7s %-12s %14lu %14lu %11s  %s\n", s->id,
                   s->closed_ms ? "closed" : "open", parents, (unsigned long)s->oldest,
                   (unsigned long)s->next, size_text(s->bytes), moment_text(s->latest_at_ms));
        }
    }
    weir_stream_description_free(d);
    return WEIR_OK;
}

enum weir_exit
run_describe(struct args *a)
{
    return with_client(a, do_describe);
}

static enum weir_status
do_delete(struct args *a, struct weir_client *c, struct weir_error *err)
{
    return weir_delete_stream(c, a->operand[0], err);
}

enum weir_exit
run_delete(struct args *a)
{
    return with_client(a, do_delete);
}

const struct option options_retention[] = {
    {"size", SIZE, "SIZE", NULL,
     "bytes each shard keeps (up to a batch more); 0 removes the limit"},
    {0},
};

static enum weir_status
do_retention(struct args *a, struct weir_client *c, struct weir_error *err)
{
    uint64_t ms = 0, bytes = 0;
    if (a->operand_count > 1 && weir_parse_duration(weir_bytes_of(a->operand[1]), &ms))
        return weir_fail(err, WEIR_INVALID, "'%s' is not a length of time (24h, 7d)",
                         a->operand[1]);
    if (!args_size(a, "size", &bytes))
        return WEIR_INVALID;
    if (args_has(a, "size") && bytes == 0)
        bytes = UINT64_MAX;
    if (ms || bytes) {
        enum weir_status st = weir_set_retention(c, a->operand[0], ms, bytes, err);
        if (st)
            return st;
    }
    struct weir_stream_description *d;
    enum weir_status st = weir_describe_stream(c, a->operand[0], &d, err);
    if (st)
        return st;
    if (a->json) {
        struct output o;
        output_begin(&o);
        weir_json_begin_object(&o.json);
        member_u64(&o, "retention_ms", d->retention_ms);
        member_u64(&o, "retention_bytes", d->retention_bytes);
        weir_json_end_object(&o.json);
        (void)output_emit(&o);
    } else if (d->retention_bytes) {
        printf("%s, at most %s a shard\n", duration_text(d->retention_ms),
               size_text(d->retention_bytes));
    } else {
        printf("%s\n", duration_text(d->retention_ms));
    }
    weir_stream_description_free(d);
    return WEIR_OK;
}

enum weir_exit
run_retention(struct args *a)
{
    uint64_t n;
    if (a->operand_count > 1 && weir_parse_duration(weir_bytes_of(a->operand[1]), &n))
        return bad_usage(a, "'%s' is not a length of time (24h, 7d)", a->operand[1]);
    if (!args_size(a, "size", &n))
        return EXIT_USAGE;
    return with_client(a, do_retention);
}

const struct option options_split[] = {
    {"at", TEXT, "HASH", "the middle", "first hash key of the upper child, decimal"},
    {0},
};

static enum weir_status
do_split(struct args *a, struct weir_client *c, struct weir_error *err)
{
    uint32_t shard = 0;
    parse_shard(a->operand[1], &shard);
    return weir_split_shard(c, a->operand[0], shard, args_text(a, "at", NULL), err);
}

enum weir_exit
run_split(struct args *a)
{
    uint32_t shard;
    if (!parse_shard(a->operand[1], &shard))
        return bad_usage(a, "'%s' is not a shard: its number or id", a->operand[1]);
    return with_client(a, do_split);
}

static enum weir_status
do_merge(struct args *a, struct weir_client *c, struct weir_error *err)
{
    uint32_t shard = 0, adjacent = 0;
    parse_shard(a->operand[1], &shard);
    parse_shard(a->operand[2], &adjacent);
    return weir_merge_shards(c, a->operand[0], shard, adjacent, err);
}

enum weir_exit
run_merge(struct args *a)
{
    uint32_t shard;
    for (int i = 1; i <= 2; i++)
        if (!parse_shard(a->operand[i], &shard))
            return bad_usage(a, "'%s' is not a shard: its number or id", a->operand[i]);
    return with_client(a, do_merge);
}

static enum weir_status
do_update_shard_count(struct args *a, struct weir_client *c, struct weir_error *err)
{
    uint64_t count = 0;
    enum weir_status st = weir_parse_u64(weir_bytes_of(a->operand[1]), &count);
    return st ? st : weir_update_shard_count(c, a->operand[0], (uint32_t)count, err);
}

enum weir_exit
run_update_shard_count(struct args *a)
{
    uint64_t count;
    if (weir_parse_u64(weir_bytes_of(a->operand[1]), &count) || count == 0 || count > 10000)
        return bad_usage(a, "'%s' is not a number of shards from 1 to 10000", a->operand[1]);
    return with_client(a, do_update_shard_count);
}
