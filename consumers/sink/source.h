/* From a broker to an exporter: subscribes to a stream as a named consumer, feeds what comes,
 * publishes what is due, and moves the checkpoint behind what is published.
 *
 * The boundary log says where to go on; the broker's checkpoints are set to it at the start. A
 * destination that is down holds the reading up (credit runs out, nothing is lost) and is tried
 * again with growing pauses and jitter. */
#pragma once
#include "client/weir.h"
#include "sink/exporter.h"

struct weir_export_run {
    struct weir_client *client;
    const char *stream, *consumer;
    struct weir_from from; /* where a shard is new */
    bool follow;           /* else until what is there now */
    struct weir_exporter *exporter;
    bool with_sequence;
    /* True ends the run in order: what was read is published. */
    bool (*stop)(void *arg);
    /* About four times a second, and when something failed (text not NULL): what it says is being
     * tried again. */
    void (*progress)(void *arg, const struct weir_exporter_numbers *numbers, uint64_t lag_ms,
                     const char *text);
    void *arg;
};
/* Opens run->exporter, trying again as long as the destination wants that: what a crash left
 * decided is published first. BUSY, DAMAGED, INVALID as weir_exporter_open. */
enum weir_status weir_export_open(struct weir_export_run *run,
                                  const struct weir_exporter_options *options,
                                  struct weir_error *err);
/* OK: ended in order. FENCED: another exporter of that name took over. DENIED, NOT_FOUND, EXISTS:
 * the destination needs somebody to act; nothing is lost. */
enum weir_status weir_export_run(const struct weir_export_run *run, struct weir_error *err);
