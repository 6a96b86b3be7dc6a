/* Puts each line of standard input into a stream; what stands before the first blank is its key.
 *
 *     printf 'order-17 paid\norder-18 sent\n' | put orders */
#include <stdio.h>
#include <string.h>
#include <weir/weir.h>

/* On a thread of the library, once per record, in order per shard. */
static void
on_ack(void *arg, const struct weir_ack *ack)
{
    unsigned long *stored = arg;
    if (ack->status == WEIR_OK || ack->status == WEIR_DUPLICATE)
        ++*stored;
    else
        fprintf(stderr, "line %lu: %s\n", (unsigned long)(size_t)ack->tag, ack->text);
}

int
main(int argc, char **argv)
{
    struct weir_client *client = NULL;
    struct weir_producer *producer = NULL;
    struct weir_error err = {0};
    unsigned long stored = 0;
    size_t number = 0;
    char line[65536];

    struct weir_producer_options options = {
        .stream = argc > 1 ? argv[1] : "orders", .on_ack = on_ack, .arg = &stored};
    enum weir_status st = weir_client_open(NULL, &client, &err);
    if (!st)
        st = weir_producer_open(client, &options, &producer, &err);
    while (!st && fgets(line, sizeof line, stdin)) {
        size_t len = strcspn(line, "\n"), key_len = strcspn(line, " \n");
        /* Copied in; waits while more than memory_bytes are not stored yet. */
        st = weir_put(producer, line, key_len, line, len, (void *)++number, 60000);
        if (st)
            snprintf(err.text, sizeof err.text, "line %zu: %s", number, weir_status_text(st));
    }
    if (!st)
        st = weir_producer_flush(producer, 60000, &err);
    if (st)
        fprintf(stderr, "put: %s\n", err.text);
    weir_producer_close(producer);
    weir_client_close(client);
    printf("%lu of %zu stored\n", stored, number);
    return st ? 1 : 0;
}
