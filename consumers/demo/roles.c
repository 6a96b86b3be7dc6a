#include "demo/roles.h"
#include "change/change.h"
#include "client/weir.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SHARDS_MAX 64
#define PRODUCTS_MAX 64

struct product {
    char id[16], name[48];
    uint64_t units, cents;
};

struct role {
    const char *directory;
    uint64_t position[SHARDS_MAX]; /* next offset to work on, stored with the result */
    FILE *lines;                   /* notifier */
    struct product product[PRODUCTS_MAX];
    size_t product_count;
    void (*work)(struct role *r, const struct weir_event_record *record);
    bool (*store)(struct role *r);
};

static volatile sig_atomic_t stop;

static void
on_signal(int number)
{
    (void)number;
    stop = 1;
}

static void
attribute(struct weir_bytes image, const char *name, char *out, size_t size)
{
    struct weir_change_attribute a;
    struct weir_text text = {0};
    out[0] = '\0';
    if (!weir_change_attribute(image, weir_bytes_of(name), &a) &&
        !weir_change_attribute_text(&a, &text) && text.data)
        snprintf(out, size, "%s", text.data);
    weir_text_fini(&text);
}

/* ---- notifier: a line a shipment; the line itself says where it came from ---- */

static void
notify(struct role *r, const struct weir_event_record *record)
{
    struct weir_change_info info;
    char now[32], before[32], id[40], tracking[40];
    if (weir_change_peek(weir_bytes(record->data, record->data_len), &info, NULL) ||
        !info.new_image.data || !info.old_image.data)
        return;
    attribute(info.new_image, "status", now, sizeof now);
    attribute(info.old_image, "status", before, sizeof before);
    if (strcmp(now, "shipped") != 0 || strcmp(before, "shipped") == 0)
        return;
    attribute(info.new_image, "orderId", id, sizeof id);
    attribute(info.new_image, "trackingNumber", tracking, sizeof tracking);
    fprintf(r->lines, "%u\t%lu\tYour order %s is on its way: %s\n", record->shard,
            (unsigned long)record->offset, id, tracking);
}

static bool
store_lines(struct role *r)
{
    return fflush(r->lines) == 0;
}

static bool
open_lines(struct role *r)
{
    char path[4096], line[512];
    snprintf(path, sizeof path, "%s/notifications.txt", r->directory);
    r->lines = fopen(path, "a+");
    if (!r->lines)
        return false;
    long whole = 0;
    while (fgets(line, sizeof line, r->lines)) {
        unsigned shard;
        unsigned long offset;
        if (!strchr(line, '\n'))
            break; /* the crash cut this line */
        whole = ftell(r->lines);
        if (sscanf(line, "%u\t%lu", &shard, &offset) == 2 && shard < SHARDS_MAX)
            r->position[shard] = offset + 1;
    }
    return ftruncate(fileno(r->lines), whole) == 0 && fseek(r->lines, 0, SEEK_END) == 0;
}

/* ---- view: units and revenue per product ---- */

static void
count_item(struct role *r, struct weir_bytes item)
{
    char id[16], name[48], quantity[16], price[16];
    attribute(item, "productId", id, sizeof id);
    attribute(item, "name", name, sizeof name);
    attribute(item, "quantity", quantity, sizeof quantity);
    attribute(item, "unitPrice", price, sizeof price);
    size_t i = 0;
    while (i < r->product_count && strcmp(r->product[i].id, id) != 0)
        i++;
    if (i == PRODUCTS_MAX)
        return;
    struct product *p = &r->product[i];
    if (i == r->product_count) {
        r->product_count++;
        memcpy(p->id, id, sizeof id);
        memcpy(p->name, name, sizeof name);
    }
    unsigned long whole = 0, part = 0, units = strtoul(quantity, NULL, 10);
    if (sscanf(price, "%lu.%2lu", &whole, &part) >= 1) {
        p->units += units;
        p->cents += units * (whole * 100 + part);
    }
}

static void
count_order(struct role *r, const struct weir_event_record *record)
{
    struct weir_change_info info;
    struct weir_change_attribute items;
    if (weir_change_peek(weir_bytes(record->data, record->data_len), &info, NULL) ||
        info.event != WEIR_CHANGE_INSERT || !info.new_image.data ||
        weir_change_attribute(info.new_image, weir_bytes_of("items"), &items))
        return;
    struct weir_json_reader reader;
    weir_json_reader_init(&reader, items.value, 64);
    if (weir_json_next(&reader) != WEIR_JSON_ARRAY)
        return;
    while (weir_json_next(&reader) == WEIR_JSON_OBJECT)
        while (weir_json_next(&reader) == WEIR_JSON_NAME && weir_json_skip(&reader))
            count_item(r, reader.text);
}

static bool
store_view(struct role *r)
{
    char path[4096], fresh[4096];
    snprintf(path, sizeof path, "%s/products.tsv", r->directory);
    snprintf(fresh, sizeof fresh, "%s/products.tsv.new", r->directory);
    FILE *f = fopen(fresh, "w");
    if (!f)
        return false;
    for (size_t i = 0; i < SHARDS_MAX; i++)
        if (r->position[i])
            fprintf(f, "position\t%zu\t%lu\n", i, (unsigned long)r->position[i]);
    for (size_t i = 0; i < r->product_count; i++)
        fprintf(f, "product\t%s\t%lu\t%lu\t%s\n", r->product[i].id,
                (unsigned long)r->product[i].units, (unsigned long)r->product[i].cents,
                r->product[i].name);
    bool ok = fflush(f) == 0 && fsync(fileno(f)) == 0;
    ok &= fclose(f) == 0;
    return ok && rename(fresh, path) == 0;
}

static void
load_view(struct role *r)
{
    char path[4096], line[256];
    snprintf(path, sizeof path, "%s/products.tsv", r->directory);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        struct product *p = &r->product[r->product_count];
        size_t shard;
        unsigned long offset, units, cents;
        if (sscanf(line, "position\t%zu\t%lu", &shard, &offset) == 2 && shard < SHARDS_MAX)
            r->position[shard] = offset;
        else if (r->product_count < PRODUCTS_MAX &&
                 sscanf(line, "product\t%15s\t%lu\t%lu\t%47[^\n]", p->id, &units, &cents,
                        p->name) == 4) {
            p->units = units;
            p->cents = cents;
            r->product_count++;
        }
    }
    if (f)
        fclose(f);
}

/* ---- both ---- */

static int
follow(struct role *r, const char *broker, const char *consumer)
{
    struct weir_error err = {0};
    struct weir_client *client = NULL;
    struct weir_subscription *sub = NULL;
    struct weir_subscribe_options o = {
        .stream = "orders",
        .consumer = consumer,
        .from = {.kind = WEIR_FROM_CHECKPOINT, .otherwise = WEIR_FROM_OLDEST},
        .take_checkpoint = true,
    };
    int status = 1;
    signal(SIGTERM, on_signal);
    signal(SIGINT, SIG_IGN);
    if (weir_client_open(&(struct weir_client_options){.url = broker, .name = consumer}, &client,
                         &err) ||
        weir_subscribe(client, &o, &sub, &err))
        goto done;
    while (!stop) {
        struct weir_event *event;
        enum weir_status st = weir_poll(sub, 100, &event, &err);
        if (st == WEIR_TIMEOUT)
            continue;
        if (st)
            goto done;
        if (event->kind == WEIR_EVENT_RECORDS && event->shard < SHARDS_MAX) {
            struct weir_event_record record;
            while (weir_event_next(event, &record))
                if (record.offset >= r->position[record.shard])
                    r->work(r, &record);
            r->position[event->shard] = event->limit;
            if (!r->store(r)) {
                fprintf(stderr, "%s: cannot store the result\n", consumer);
                weir_event_free(event);
                goto done;
            }
            weir_checkpoint_later(sub, event->shard, event->limit);
        }
        weir_event_free(event);
    }
    status = 0;
done:
    if (status)
        fprintf(stderr, "%s: %s\n", consumer, err.text);
    weir_subscription_close(sub);
    weir_client_close(client);
    return status;
}

int
run_notifier(const char *broker, const char *directory)
{
    struct role r = {.directory = directory, .work = notify, .store = store_lines};
    if (!open_lines(&r)) {
        fprintf(stderr, "shipping-notifications: cannot open its file\n");
        return 1;
    }
    int status = follow(&r, broker, "shipping-notifications");
    fclose(r.lines);
    return status;
}

int
run_view(const char *broker, const char *directory)
{
    struct role r = {.directory = directory, .work = count_order, .store = store_view};
    load_view(&r);
    return follow(&r, broker, "product-view");
}
