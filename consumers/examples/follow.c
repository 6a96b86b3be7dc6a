/* Prints a stream's records as consumer NAME, and goes on where it stopped when it is run again.
 * With
 * --once it stops at what is there now.
 *
 *     follow orders mailer [--once] */
#include <stdio.h>
#include <string.h>
#include <weir/weir.h>

static void
print(struct weir_subscription *sub, struct weir_event *event)
{
    struct weir_event_record record;
    switch (event->kind) {
    case WEIR_EVENT_RECORDS:
        while (weir_event_next(event, &record))
            printf("%u %lu %.*s\n", record.shard, (unsigned long)record.offset,
                   (int)record.data_len, (const char *)record.data);
        fflush(stdout);
        break;
    case WEIR_EVENT_GAP:
        fprintf(stderr, "shard %u: records %lu to %lu are gone\n", event->shard,
                (unsigned long)event->first, (unsigned long)event->limit - 1);
        break;
    case WEIR_EVENT_SHARD_END: /* its children follow by themselves */
        break;
    default: /* PROGRESS, CONNECTION, FENCED: nothing to print, nothing to remember */
        return;
    }
    /* All before `limit` is done: a later run begins there. */
    weir_checkpoint_later(sub, event->shard, event->limit);
}

int
main(int argc, char **argv)
{
    struct weir_client *client = NULL;
    struct weir_subscription *sub = NULL;
    struct weir_error err = {0};
    struct weir_subscribe_options options = {
        .stream = argc > 1 ? argv[1] : "orders",
        .consumer = argc > 2 ? argv[2] : "example",
        .from = {.kind = WEIR_FROM_CHECKPOINT, .otherwise = WEIR_FROM_OLDEST},
        .take_checkpoint = true,
        .until_tail = argc > 3 && strcmp(argv[3], "--once") == 0,
    };
    enum weir_status st = weir_client_open(NULL, &client, &err);
    if (!st)
        st = weir_subscribe(client, &options, &sub, &err);
    while (!st) {
        struct weir_event *event;
        st = weir_poll(sub, -1, &event, &err);
        if (!st) {
            print(sub, event);
            weir_event_free(event); /* gives its credit back */
        }
    }
    if (st != WEIR_END)
        fprintf(stderr, "follow: %s\n", err.text);
    weir_subscription_close(sub); /* waits for the last checkpoints */
    weir_client_close(client);
    return st == WEIR_END ? 0 : 1;
}
