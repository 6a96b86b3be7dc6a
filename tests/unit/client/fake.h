/* A broker for the client's tests: one stream "s", all in memory, on a loop of its own, with the
 * faults that a test asks for. It keeps the wire's contract (proto/wire/frame.h) where no fault is
 * asked for.
 *
 * Threads: any; each call waits for the fake's lock. */
#pragma once
#include "record/batch.h"
#include "wire/message.h"

struct fake;

/* Chances in 1,000, rolled per frame with the fake's seed. */
struct fake_faults {
    unsigned drop_before; /* PRODUCE: the connection is cut, nothing stored */
    unsigned drop_after;  /* stored, but cut before the ack */
    unsigned refuse;      /* AGAIN, THROTTLED, NO_SPACE, UNAVAILABLE */
    unsigned unknown;     /* answered UNKNOWN, stored or not */
    unsigned reshard;     /* the shard is split, or merged with its neighbour, before it is asked */
    unsigned late;        /* the ack waits for a while */
    unsigned cut_data;    /* DATA: the connection is cut instead */
    unsigned skip_data;   /* a frame is left out, or its number skips one */
    unsigned flip_data;   /* a bit is flipped */
    unsigned forget;      /* OpenProducer: the producer is forgotten */
};

struct fake *fake_new(const char *url, uint32_t shards, uint64_t seed);
void fake_free(struct fake *f);
const char *fake_url(const struct fake *f);
void fake_set_faults(struct fake *f, const struct fake_faults *faults);

/* The next HELLOs are refused; WEIR_OK: no more. */
void fake_refuse_hello(struct fake *f, enum weir_status st);
/* Every PRODUCE is answered so, nothing is stored; WEIR_OK: no more. */
void fake_refuse_batches(struct fake *f, enum weir_status st);
/* Says nothing any more, on whatever connection. */
void fake_mute(struct fake *f, bool mute);
/* No connections (they are cut) until it listens again. */
void fake_stop_listening(struct fake *f);
void fake_listen_again(struct fake *f);
void fake_drop_connections(struct fake *f);
void fake_drain(struct fake *f);
unsigned fake_hellos(struct fake *f);
/* OpenProducer, Subscribe, SetCheckpoint calls seen. */
unsigned fake_calls(struct fake *f, int op_case);

/* Appends one batch of `count` records with keys "k" and data "FIRST…". */
void fake_append(struct fake *f, uint32_t shard, uint32_t count, uint64_t at_ms, bool compressed);
void fake_split(struct fake *f, uint32_t shard);
void fake_merge(struct fake *f, uint32_t shard, uint32_t adjacent);
void fake_trim(struct fake *f, uint32_t shard, uint64_t oldest);
/* A shard that is not listed any more. */
void fake_expire(struct fake *f, uint32_t shard);
void fake_delete(struct fake *f);
/* The next WELCOME names another data directory. */
void fake_new_data(struct fake *f);
/* How many faults were done. */
unsigned fake_hits(struct fake *f);
void fake_heartbeat(struct fake *f);
uint32_t fake_shard_count(struct fake *f);
uint64_t fake_next(struct fake *f, uint32_t shard);
/* Subscribe's credit and what came back, of the last channel of the shard. */
int64_t fake_credit(struct fake *f, uint32_t shard);

/* All records of a shard in order of offsets. */
void fake_each(struct fake *f, uint32_t shard,
               void (*each)(void *arg, uint64_t offset, const struct weir_record *record),
               void *arg);
/* Parent shards of a shard, -1: none. */
void fake_parents(struct fake *f, uint32_t shard, int out[2]);
/* A checkpoint as the fake has it; false: none. */
bool fake_checkpoint(struct fake *f, const char *consumer, uint32_t shard, uint64_t *offset,
                     uint64_t *epoch, bool *shard_end);
void fake_set_checkpoint(struct fake *f, const char *consumer, uint32_t shard, uint64_t offset,
                         uint64_t epoch, bool shard_end);
