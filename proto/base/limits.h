/* The limits, in one place. Relations between them are asserted here, with the reason. */
#pragma once
#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define WEIR_KIB ((size_t)1024)
#define WEIR_MIB (1024 * WEIR_KIB)
#define WEIR_GIB (1024 * WEIR_MIB)

/* Kinesis model 2013-12-02: StreamName, ConsumerName, PartitionKey (characters), ShardId. */
#define WEIR_STREAM_NAME_MAX 128
#define WEIR_CONSUMER_NAME_MAX 128
#define WEIR_KEY_CHARACTERS_MAX 256
#define WEIR_KEY_BYTES_MAX (4 * WEIR_KEY_CHARACTERS_MAX)
#define WEIR_ACCOUNT_DIGITS 12

/* A record is its data and its partition key (Kinesis: MaxRecordSizeInKiB up to 10,240). */
#define WEIR_RECORD_BYTES_MAX (10 * WEIR_MIB)
#define WEIR_RECORD_BYTES_DEFAULT (1 * WEIR_MIB)

/* A batch is the unit of storage, checksum, compression, index and wire. */
#define WEIR_BATCH_RECORDS_MAX 65535
#define WEIR_BATCH_BODY_RAW_MAX (12 * WEIR_MIB) /* body before compression */
#define WEIR_BATCH_BYTES_MAX (12 * WEIR_MIB + 64 * WEIR_KIB)
#define WEIR_BATCH_TARGET_BYTES (256 * WEIR_KIB) /* what producers aim at */

/* A frame is one message of the native protocol: its header, and control or whole batches. */
#define WEIR_FRAME_BYTES_MAX (16 * WEIR_MIB)
#define WEIR_CONTROL_BYTES_MAX (1 * WEIR_MIB) /* protobuf part of a frame, after HELLO */
#define WEIR_HELLO_BYTES_MAX (4 * WEIR_KIB)   /* the first frame of a peer nobody knows yet */

#define WEIR_STREAMS_MAX 10000
#define WEIR_SHARDS_PER_STREAM_MAX 10000
#define WEIR_SHARDS_MAX 200000
#define WEIR_OWNERS_MAX 64
#define WEIR_CONNECTIONS_MAX 20000
#define WEIR_CHANNELS_PER_CONNECTION_MAX 20000
#define WEIR_PRODUCERS_PER_SHARD_MAX 4096

#define WEIR_RETENTION_MS_MIN (3600ull * 1000)
#define WEIR_RETENTION_MS_DEFAULT (24 * 3600ull * 1000)
#define WEIR_RETENTION_MS_MAX (3650 * 24 * 3600ull * 1000)

static_assert(WEIR_RECORD_BYTES_MAX + WEIR_KEY_BYTES_MAX + 64 <= WEIR_BATCH_BODY_RAW_MAX,
              "the largest record must fit into a batch of its own");
static_assert(WEIR_BATCH_BYTES_MAX + 256 <= WEIR_FRAME_BYTES_MAX,
              "the largest batch must fit into a frame");
