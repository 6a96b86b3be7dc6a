/* How a history is made: each order has a plan of up to seven steps, drawn from a random stream of
 * its own; `turns` lists the steps of all orders by time; a change is rendered from its order's
 * plan when it is asked for, so a long history costs memory for its steps only. */
#include "demo/orders.h"
#include "base/text.h"
#include "sys/random.h"
#include <stdio.h>
#include <stdlib.h>

enum kind { CREATED, APPROVED, READDRESSED, PACKED, SHIPPED, DELIVERED, CANCELLED, EXPIRED };

static const char *const status_of[] = {
    [CREATED] = "created",     [APPROVED] = "approved", [READDRESSED] = "approved",
    [PACKED] = "packed",       [SHIPPED] = "shipped",   [DELIVERED] = "delivered",
    [CANCELLED] = "cancelled", [EXPIRED] = "cancelled",
};

static const struct {
    const char *name;
    uint32_t cents, grams;
} products[] = {
    {"kettle", 3490, 1200},        {"tea tin", 1250, 310},         {"stoneware mug", 1490, 420},
    {"bread knife", 2890, 260},    {"chopping board", 3950, 1800}, {"linen apron", 2790, 350},
    {"cast-iron pan", 6990, 2900}, {"pepper mill", 3290, 480},     {"storage jar", 990, 610},
    {"coffee grinder", 5490, 980}, {"paper filters", 390, 120},    {"milk jug", 1690, 390},
    {"kitchen scale", 2490, 700},  {"egg timer", 890, 90},         {"wooden spoon", 450, 60},
    {"salad bowl", 3190, 1100},    {"tea towel", 790, 110},        {"oven glove", 1290, 180},
    {"muffin tray", 1790, 850},    {"rolling pin", 1590, 640},     {"sieve", 1150, 230},
    {"whisk", 690, 130},           {"measuring jug", 1190, 450},   {"herb scissors", 1390, 150},
};
static const char *const cities[] = {"Lisboa", "Kraków",   "Gent",      "Göteborg", "Αθήνα",
                                     "東京",   "Montréal", "São Paulo", "Brno",     "Leeds"};
static const char *const notes[] = {"for Ana \"the baker\"", "leave at n° 7, back door",
                                    "joyeux anniversaire 🎂", "line one\nline two",
                                    "path C:\\orders",       "with love, Gran"};
static const char *const pays[] = {"card", "invoice", "voucher", "wallet"};

struct step {
    uint64_t at_ms;
    uint32_t order;
    uint16_t serial; /* within the order */
    uint8_t kind;
};

struct weir_orders {
    uint64_t seed;
    uint32_t count, step_count, next;
    struct step *steps; /* order by order */
    uint32_t *turns;    /* indexes of steps, by time */
    struct weir_text json;
    char key[40];
};

static int
by_time(const void *a, const void *b, void *steps)
{
    const struct step *x = (struct step *)steps + *(const uint32_t *)a;
    const struct step *y = (struct step *)steps + *(const uint32_t *)b;
    if (x->at_ms != y->at_ms)
        return x->at_ms < y->at_ms ? -1 : 1;
    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return (int)x->serial - (int)y->serial;
}

static struct weir_random
order_random(const struct weir_orders *o, uint32_t order)
{
    struct weir_random r;
    weir_random_init(&r, o->seed ^ (0x9e3779b97f4a7c15ull * (order + 1)));
    return r;
}

static void
plan(struct weir_orders *o, uint32_t order, uint64_t placed_ms)
{
    struct weir_random r = order_random(o, order);
    uint64_t at = placed_ms;
    uint16_t serial = 0;
    uint64_t fate = weir_random_below(&r, 100);
#define STEP(what, wait_ms) \
    o->steps[o->step_count++] = (struct step){at += (wait_ms), order, serial++, what}
    STEP(CREATED, 0);
    STEP(APPROVED, 20000 + weir_random_below(&r, 1200000));
    if (fate < 12)
        STEP(READDRESSED, 30000 + weir_random_below(&r, 900000));
    if (fate >= 93) {
        STEP(CANCELLED, 60000 + weir_random_below(&r, 3600000));
        if (fate >= 96)
            STEP(EXPIRED, 30ull * 24 * 3600 * 1000);
        return;
    }
    STEP(PACKED, 600000 + weir_random_below(&r, 6 * 3600000));
    STEP(SHIPPED, 300000 + weir_random_below(&r, 12 * 3600000));
    if (fate < 85)
        STEP(DELIVERED, 20 * 3600000 + weir_random_below(&r, 60 * 3600000));
#undef STEP
}

enum weir_status
weir_orders_new(uint64_t seed, uint32_t count, struct weir_orders **out)
{
    struct weir_orders *o = calloc(1, sizeof *o);
    if (!o)
        return WEIR_NO_MEMORY;
    o->seed = seed;
    o->count = count;
    o->steps = calloc((size_t)count * 7 + 1, sizeof *o->steps);
    o->turns = calloc((size_t)count * 7 + 1, sizeof *o->turns);
    if (!o->steps || !o->turns) {
        weir_orders_free(o);
        return WEIR_NO_MEMORY;
    }
    struct weir_random r;
    weir_random_init(&r, seed);
    uint64_t at = WEIR_ORDERS_START_MS;
    for (uint32_t i = 0; i < count; i++) {
        plan(o, i, at);
        at += 1 + weir_random_below(&r, 90000);
    }
    for (uint32_t i = 0; i < o->step_count; i++)
        o->turns[i] = i;
    qsort_r(o->turns, o->step_count, sizeof *o->turns, by_time, o->steps);
    *out = o;
    return WEIR_OK;
}

void
weir_orders_free(struct weir_orders *o)
{
    if (!o)
        return;
    weir_text_fini(&o->json);
    free(o->turns);
    free(o->steps);
    free(o);
}

uint32_t
weir_orders_change_count(const struct weir_orders *o)
{
    return o->step_count;
}

static void
put_moment(struct weir_text *t, const char *name, uint64_t at_ms)
{
    char moment[25];
    weir_format_moment(at_ms, moment);
    weir_text_printf(t, ",\"%s\":{\"S\":\"%s\"}", name, moment);
}

static void
put_escaped(struct weir_text *t, const char *s)
{
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            weir_text_printf(t, "\\%c", *s);
        else if (*s == '\n')
            weir_text_puts(t, "\\n");
        else
            weir_text_append(t, weir_bytes(s, 1));
    }
}

static uint32_t
put_items(struct weir_text *t, struct weir_random *r, uint64_t *cents, uint64_t *grams)
{
    uint32_t lines = 1 + (uint32_t)weir_random_below(r, 4), units = 0;
    weir_text_puts(t, ",\"items\":{\"L\":[");
    for (uint32_t i = 0; i < lines; i++) {
        size_t which = weir_random_below(r, sizeof products / sizeof *products);
        uint32_t quantity = 1 + (uint32_t)weir_random_below(r, 3);
        weir_text_printf(t,
                         "%s{\"M\":{\"productId\":{\"S\":\"P-%03zu\"},\"name\":{\"S\":\"%s\"},"
                         "\"quantity\":{\"N\":\"%u\"},\"unitPrice\":{\"N\":\"%u.%02u\"}}}",
                         i ? "," : "", which + 1, products[which].name, quantity,
                         products[which].cents / 100, products[which].cents % 100);
        units += quantity;
        *cents += (uint64_t)products[which].cents * quantity;
        *grams += (uint64_t)products[which].grams * quantity;
    }
    weir_text_puts(t, "]}");
    return units;
}

/* The order as it stood after a step. Drawn anew from the order's own random numbers each time, so
 * that what does not change between two steps is the same in both. */
static uint32_t
put_image(struct weir_text *t, const struct weir_orders *o, const struct step *steps, uint16_t upto,
          uint64_t created_ms)
{
    struct weir_random r = order_random(o, steps->order);
    weir_random_init(&r, weir_random_u64(&r) ^ 0x5851f42d4c957f2dull);
    enum kind kind = steps[upto].kind;
    bool readdressed = false, shipped = false, delivered = false;
    for (uint16_t i = 0; i <= upto; i++) {
        readdressed |= steps[i].kind == READDRESSED;
        shipped |= steps[i].kind == SHIPPED;
        delivered |= steps[i].kind == DELIVERED;
    }
    uint64_t cents = 490, grams = 0; /* postage */
    weir_text_printf(t, "{\"orderId\":{\"S\":\"%s\"},\"customerId\":{\"S\":\"C-%05lu\"}", o->key,
                     (unsigned long)weir_random_below(&r, 40000));
    weir_text_printf(t, ",\"status\":{\"S\":\"%s\"}", status_of[kind]);
    put_moment(t, "orderTimestamp", created_ms);
    put_moment(t, "updatedAt", steps[upto].at_ms);
    uint32_t units = put_items(t, &r, &cents, &grams);
    weir_text_printf(
        t, ",\"total\":{\"N\":\"%lu.%02lu\"},\"parcelGrams\":{\"NS\":[\"%lu\",\"120\"]}",
        (unsigned long)cents / 100, (unsigned long)cents % 100, (unsigned long)grams + 121);
    size_t pay = weir_random_below(&r, 4);
    weir_text_printf(t, ",\"paymentTypes\":{\"SS\":[\"%s\"%s]},\"gift\":{\"BOOL\":%s}", pays[pay],
                     pay == 2 ? ",\"card\"" : "", weir_random_below(&r, 5) ? "false" : "true");
    uint8_t receipt[16];
    char text[32];
    for (size_t i = 0; i < sizeof receipt; i++)
        receipt[i] = (uint8_t)weir_random_u64(&r);
    size_t len = weir_base64_encode(weir_bytes(receipt, sizeof receipt), text);
    weir_text_printf(t, ",\"receipt\":{\"B\":\"%.*s\"},\"stamps\":{\"BS\":[\"%.4s\"]}", (int)len,
                     text, text);
    size_t city = weir_random_below(&r, 10);
    weir_text_printf(
        t,
        ",\"address\":{\"M\":{\"city\":{\"S\":\"%s\"},\"street\":{\"S\":\"Mill Lane %lu\"},"
        "\"corrected\":{\"BOOL\":%s}}}",
        cities[readdressed ? (city + 1) % 10 : city],
        (unsigned long)(1 + weir_random_below(&r, 180)), readdressed ? "true" : "false");
    if (weir_random_below(&r, 3) == 0) {
        weir_text_puts(t, ",\"note\":{\"S\":\"");
        put_escaped(t, notes[weir_random_below(&r, 6)]);
        weir_text_puts(t, "\"}");
    } else {
        weir_text_puts(t, ",\"note\":{\"NULL\":true}");
    }
    if (shipped)
        weir_text_printf(t, ",\"trackingNumber\":{\"S\":\"WR%012lu\"}",
                         (unsigned long)(weir_random_u64(&r) % 1000000000000ul));
    if (delivered)
        put_moment(t, "deliveredAt", steps[upto].at_ms);
    weir_text_puts(t, "}");
    return units;
}

enum weir_status
weir_orders_next(struct weir_orders *o, struct weir_order_change *out)
{
    if (o->next == o->step_count)
        return WEIR_END;
    const struct step *step = &o->steps[o->turns[o->next++]];
    struct weir_random r = order_random(o, step->order);
    uint64_t id = weir_random_u64(&r);
    snprintf(o->key, sizeof o->key, "O-%06u-%04lx", step->order + 1, (unsigned long)(id & 0xffff));

    const struct step *own = step - step->serial;
    uint64_t first_ms = own->at_ms;

    struct weir_text *t = &o->json;
    weir_text_clear(t);
    bool insert = step->kind == CREATED, remove = step->kind == EXPIRED;
    weir_text_printf(
        t,
        "{\"awsRegion\":\"local\",\"eventID\":\"%016lx-%02u\",\"eventName\":\"%s\","
        "\"userIdentity\":%s,\"recordFormat\":\"application/json\",\"tableName\":\"Orders\","
        "\"dynamodb\":{\"ApproximateCreationDateTime\":%lu,\"Keys\":{\"orderId\":{\"S\":\"%s\"}}",
        (unsigned long)id, step->serial,
        insert   ? "INSERT"
        : remove ? "REMOVE"
                 : "MODIFY",
        remove ? "{\"type\":\"Service\",\"principalId\":\"dynamodb.amazonaws.com\"}" : "null",
        (unsigned long)step->at_ms, o->key);
    size_t images = t->len;
    uint32_t units = 0;
    if (!remove) {
        weir_text_puts(t, ",\"NewImage\":");
        units = put_image(t, o, own, step->serial, first_ms);
    }
    if (!insert) {
        weir_text_puts(t, ",\"OldImage\":");
        put_image(t, o, own, (uint16_t)(step->serial - 1), first_ms);
    }
    weir_text_printf(t, ",\"SizeBytes\":%zu},\"eventSource\":\"aws:dynamodb\"}",
                     (t->len - images) / 2);
    if (t->failed)
        return WEIR_NO_MEMORY;
    *out = (struct weir_order_change){
        .key = o->key,
        .json = weir_bytes(t->data, t->len),
        .at_ms = step->at_ms,
        .is_shipped = step->kind == SHIPPED,
        .is_insert = insert,
        .is_remove = remove,
        .units = insert ? units : 0,
    };
    return WEIR_OK;
}
