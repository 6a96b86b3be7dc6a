/* Control messages: protobuf (weir.proto through protobuf-c), bounded before anything is unpacked.
 *
 * protobuf-c trusts lengths and repeated fields more than we do, so a scan over the raw bytes comes
 * first: total size, nesting, number of fields, count of each repeated field, length of each string
 * and bytes field, UTF-8 of strings, and that no field comes twice that may come once. Only then is
 * it unpacked, into an arena of bounded size. Fields that this side does not know are skipped. */
#pragma once
#include "base/buffer.h"
#include "base/error.h"
#include "base/text.h"
#include "wire/frame.h"
#include "wire/weir.pb-c.h"

#define WEIR_MESSAGE_FIELDS_MAX 200000 /* of one message, with all nested ones */
#define WEIR_MESSAGE_DEPTH_MAX 8
#define WEIR_MESSAGE_REPEATED_MAX 100000
#define WEIR_MESSAGE_STRING_MAX 4096

/* Unpacks a message of the given descriptor. The result is freed with weir_message_free. INVALID,
 * TOO_BIG, NO_MEMORY. */
enum weir_status weir_message_unpack(const ProtobufCMessageDescriptor *descriptor,
                                     struct weir_bytes bytes, ProtobufCMessage **out);
void weir_message_free(ProtobufCMessage *message); /* NULL is allowed */

/* A new buffer with a frame header and the packed message behind it, ready to send. TOO_BIG,
 * NO_MEMORY. */
enum weir_status weir_message_frame(const struct weir_frame *head, const ProtobufCMessage *message,
                                    struct weir_buf **out);
