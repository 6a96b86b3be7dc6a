/* consumers, checkpoint, stats: looking at who reads, and moving them. */
#include "command.h"
#include <stdio.h>

const struct option options_consumers[] = {{0}};
const struct option options_stats[] = {{0}};
const struct option options_checkpoint[] = {
    {"shard", TEXT, "SHARD", "all open", "with set: one shard alone"},
    {"offset", NUMBER, "N", NULL, "with set: the next offset to read; wants --shard"},
    {"from", WHERE, "WHERE", NULL, "with set: oldest, latest or a moment"},
    {"dry-run", FLAG, NULL, NULL,
     "with set: say what it would do, and how many records come again"},
    {0},
};

struct table {
    struct args *args;
    struct output out;
    uint64_t rows;
};

static void
consumer_row(void *arg, const struct weir_consumer_info *c)
{
    struct table *t = arg;
    t->rows++;
    if (t->args->json) {
        struct output *o = &t->out;
        weir_json_begin_object(&o->json);
        member_text(o, "name", c->name);
        member_u64(o, "shard", c->shard);
        member_bool(o, "connected", c->connected);
        if (c->connected)
            member_u64(o, "position", c->position);
        if (c->has_checkpoint)
            member_u64(o, "checkpoint", c->checkpoint);
        member_u64(o, "tail", c->tail);
        member_u64(o, "lag_records", c->lag_records);
        member_u64(o, "lag_bytes", c->lag_bytes);
        member_u64(o, "lag_ms", c->lag_ms);
        member_u64(o, "credit_bytes", c->credit_bytes);
        member_u64(o, "sent_records", c->sent_records);
        member_u64(o, "sent_bytes", c->sent_bytes);
        member_moment(o, "last_sent", c->last_sent_ms);
        weir_json_end_object(&o->json);
        return;
    }
    char checkpoint[24] = "-", position[24] = "-";
    if (c->has_checkpoint)
        snprintf(checkpoint, sizeof checkpoint, "%lu", (unsigned long)c->checkpoint);
    if (c->connected)
        snprintf(position, sizeof position, "%lu", (unsigned long)c->position);
    if (t->rows == 1)
        printf("%-24s %6s %-9s %12s %12s %12s %12s %10s %10s\n", "CONSUMER", "SHARD", "STATE",
               "CHECKPOINT", "POSITION", "TAIL", "LAG RECORDS", "LAG BYTES", "LAG TIME");
    printf("%-24s %6u %-9s %12s %12s %12lu %12s %10s %10s\n", c->name[0] ? c->name : "(no name)",
           c->shard, c->connected ? "connected" : "away", checkpoint, position,
           (unsigned long)c->tail, count_text(c->lag_records), size_text(c->lag_bytes),
           duration_text(c->lag_ms));
}

static enum weir_exit
finish_table(struct table *t, struct weir_client *client, enum weir_status st,
             const struct weir_error *err, const char *none)
{
    weir_client_close(client);
    if (t->args->json) {
        weir_json_end_array(&t->out.json);
        if (!st)
            return output_emit(&t->out);
        weir_text_fini(&t->out.text);
    }
    if (st)
        return failed(t->args, err);
    if (!t->args->json && !t->rows && !t->args->quiet)
        fprintf(stderr, "%s\n", none);
    return EXIT_DONE;
}

static struct weir_client *
begin_table(struct table *t, struct args *a)
{
    *t = (struct table){.args = a};
    struct weir_client *client = connect_or_complain(a);
    if (client && a->json) {
        output_begin(&t->out);
        weir_json_begin_array(&t->out.json);
    }
    return client;
}

enum weir_exit
run_consumers(struct args *a)
{
    struct table t;
    struct weir_error err = {0};
    struct weir_client *client = begin_table(&t, a);
    if (!client)
        return EXIT_NO_BROKER;
    enum weir_status st = weir_list_consumers(client, a->operand[0], consumer_row, &t, &err);
    return finish_table(&t, client, st, &err, "no consumers");
}

static void
stat_row(void *arg, const char *name, double value, const char *unit, const char *help)
{
    struct table *t = arg;
    t->rows++;
    if (t->args->json) {
        weir_json_begin_object(&t->out.json);
        member_text(&t->out, "name", name);
        weir_json_write_name(&t->out.json, "value");
        weir_json_write_double(&t->out.json, value, value == (double)(int64_t)value ? 0 : 3);
        member_text(&t->out, "unit", unit);
        member_text(&t->out, "help", help);
        weir_json_end_object(&t->out.json);
    } else {
        printf("%-36s %18.*f %-12s %s\n", name, value == (double)(int64_t)value ? 0 : 3, value,
               unit, help);
    }
}

enum weir_exit
run_stats(struct args *a)
{
    struct table t;
    struct weir_error err = {0};
    struct weir_client *client = begin_table(&t, a);
    if (!client)
        return EXIT_NO_BROKER;
    enum weir_status st =
        weir_get_stats(client, a->operand_count ? a->operand[0] : "", stat_row, &t, &err);
    return finish_table(&t, client, st, &err, "no such metric");
}

/* ---- checkpoint ---- */

static void
checkpoint_row(void *arg, const struct weir_checkpoint_info *c)
{
    struct table *t = arg;
    t->rows++;
    if (t->args->json) {
        struct output *o = &t->out;
        weir_json_begin_object(&o->json);
        member_u64(o, "shard", c->shard);
        weir_json_write_name(&o->json, "offset");
        if (c->set)
            weir_json_write_u64(&o->json, c->offset);
        else
            weir_json_write_null(&o->json);
        member_u64(o, "epoch", c->epoch);
        member_bool(o, "shard_end", c->shard_end);
        member_text(o, "owner", c->owner);
        member_moment(o, "updated", c->updated_ms);
        weir_json_end_object(&o->json);
        return;
    }
    if (t->rows == 1)
        printf("%6s %14s %8s %-24s %s\n", "SHARD", "OFFSET", "EPOCH", "UPDATED", "OWNER");
    char offset[32] = "-";
    if (c->shard_end)
        snprintf(offset, sizeof offset, "SHARD_END");
    else if (c->set)
        snprintf(offset, sizeof offset, "%lu", (unsigned long)c->offset);
    printf("%6u %14s %8lu %-24s %s\n", c->shard, offset, (unsigned long)c->epoch,
           moment_text(c->updated_ms), c->owner);
}

struct moving {
    struct args *args;
    struct weir_client *client;
    const char *stream, *consumer;
    bool dry, all;
    uint32_t shard;
    uint64_t again;
    enum weir_status st;
    struct weir_error err;
};

static void
move_one(struct moving *m, uint32_t shard, uint64_t offset, uint64_t tail)
{
    uint64_t again = tail > offset ? tail - offset : 0;
    m->again += again;
    printf("shard %u: %s %lu, %s records follow\n", shard, m->dry ? "would move to" : "moves to",
           (unsigned long)offset, count_text(again));
    if (!m->dry && !m->st)
        m->st = weir_set_checkpoint(m->client, m->stream, m->consumer, shard, offset, &m->err);
}

struct resolved {
    uint32_t shard;
    uint64_t offset, tail;
};
struct resolution {
    struct resolved item[10000];
    size_t count;
};

static void
resolved_one(void *arg, uint32_t shard, uint64_t offset, uint64_t oldest, uint64_t tail)
{
    (void)oldest;
    struct resolution *r = arg;
    if (r->count < sizeof r->item / sizeof *r->item)
        r->item[r->count++] = (struct resolved){shard, offset, tail};
}

static enum weir_exit
checkpoint_set(struct args *a, struct weir_client *client)
{
    struct moving m = {.args = a,
                       .client = client,
                       .stream = a->operand[1],
                       .consumer = a->operand[2],
                       .dry = args_has(a, "dry-run"),
                       .all = !args_has(a, "shard")};
    struct weir_from from = {.kind = WEIR_FROM_OLDEST};
    uint64_t offset = UINT64_MAX;
    if (!args_where(a, "from", &from) || !args_number(a, "offset", UINT64_MAX - 1, &offset))
        return EXIT_USAGE;
    if (!m.all && !parse_shard(args_text(a, "shard", ""), &m.shard))
        return bad_usage(a, "--shard is not a shard: its number or id");
    if (args_has(a, "from") == (offset != UINT64_MAX))
        return bad_usage(a, "set wants either --offset or --from");
    if (offset != UINT64_MAX) {
        if (m.all)
            return bad_usage(a, "--offset is one shard's: name it with --shard");
        from = (struct weir_from){.kind = WEIR_FROM_OFFSET, .offset = offset};
    }
    static struct resolution r;
    m.st = weir_resolve(client, m.stream, &from, m.consumer, resolved_one, &r, &m.err);
    bool found = false;
    for (size_t i = 0; i < r.count && !m.st; i++)
        if (m.all || r.item[i].shard == m.shard) {
            /* An offset as it was given: the broker refuses one that is beyond the end. */
            move_one(&m, r.item[i].shard, offset != UINT64_MAX ? offset : r.item[i].offset,
                     r.item[i].tail);
            found = true;
        }
    if (!m.st && !found && offset != UINT64_MAX) {
        move_one(&m, m.shard, offset, offset);
        found = true;
    }
    if (m.st) {
        if (!m.err.status)
            m.err.status = m.st;
        return failed(a, &m.err);
    }
    if (!found)
        return complain(a, "no such open shard"), EXIT_REFUSED;
    return EXIT_DONE;
}

enum weir_exit
run_checkpoint(struct args *a)
{
    const char *verb = a->operand[0];
    struct weir_error err = {0};
    if (strcmp(verb, "show") != 0 && strcmp(verb, "set") != 0 && strcmp(verb, "reset") != 0)
        return bad_usage(a, "'%s' is not show, set or reset", verb);
    struct table t;
    bool json = a->json;
    if (strcmp(verb, "show") != 0)
        a->json = false;
    struct weir_client *client = begin_table(&t, a);
    a->json = json;
    if (!client)
        return EXIT_NO_BROKER;
    if (strcmp(verb, "show") == 0)
        return finish_table(
            &t, client,
            weir_get_checkpoints(client, a->operand[1], a->operand[2], checkpoint_row, &t, &err),
            &err, "no checkpoints");
    enum weir_exit exit;
    if (strcmp(verb, "set") == 0)
        exit = checkpoint_set(a, client);
    else
        exit = weir_reset_checkpoints(client, a->operand[1], a->operand[2], &err) ? failed(a, &err)
                                                                                  : EXIT_DONE;
    weir_client_close(client);
    return exit;
}
