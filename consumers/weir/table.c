/* The commands. */
#include "command.h"

#define NONE \
    {        \
        0    \
    }
const struct option options_list[] = {NONE};
const struct option options_describe[] = {NONE};
const struct option options_delete[] = {NONE};
const struct option options_merge[] = {NONE};
const struct option options_update_shard_count[] = {NONE};
const struct option options_completion[] = {NONE};
const struct option options_man[] = {NONE};
const struct option options_help[] = {NONE};

const struct option global_options[] = {
    {"broker", TEXT, "URL", "$WEIR_BROKER or " WEIR_URL_DEFAULT, "the broker's address"},
    {"json", FLAG, NULL, NULL, "results as JSON: one document, or one object a line"},
    {"quiet", FLAG, NULL, NULL, "no progress and no notes on standard error"},
    {"version", FLAG, NULL, NULL, "print the version"},
    {"help", FLAG, NULL, NULL, "print help, for the command where one is named"},
    NONE,
};

const struct command commands[] = {
    {"list", "", "Streams", "names of the streams, one per line", NULL, options_list, run_list},
    {"create", "STREAM", "Streams", "make a stream", NULL, options_create, run_create},
    {"describe", "STREAM", "Streams", "its settings and shards", NULL, options_describe,
     run_describe},
    {"delete", "STREAM", "Streams", "remove a stream with all its records and checkpoints", NULL,
     options_delete, run_delete},
    {"retention", "STREAM [DURATION]", "Streams", "show or set how long records are kept",
     "Shortening trims at once. Lengthening later brings nothing back.", options_retention,
     run_retention},
    {"split", "STREAM SHARD", "Streams", "close a shard and make two of it", NULL, options_split,
     run_split},
    {"merge", "STREAM SHARD ADJACENT", "Streams", "close two neighbours and make one of them", NULL,
     options_merge, run_merge},
    {"update-shard-count", "STREAM COUNT", "Streams", "split and merge to COUNT equal shards",
     "COUNT lies between half and twice the open shards.", options_update_shard_count,
     run_update_shard_count},
    {"put", "STREAM", "Records", "put records from standard input, a file or the command line",
     "Without --lines or --ndjson, all input is the data of one record. With --lines each line is "
     "a "
     "record; with --ndjson each line must be JSON, and --key-field takes the partition key from "
     "it: a "
     "path of member names with dots. Where the path ends at a DynamoDB value such as "
     "{\"S\":\"x\"}, x "
     "is the key; where it ends at an object or array, its text as it stands is. Change records "
     "need no "
     "--key-field: their Keys are used. Returns when all records are durable.",
     options_put, run_put},
    {"tail", "STREAM", "Records", "print records as they come",
     "From the tip by default. Follows splits and merges: a shard's children come after it. Prints "
     "each "
     "record's data and a newline; --with puts columns in front, separated by tabs.",
     options_tail, run_tail},
    {"subscribe", "STREAM CONSUMER", "Records",
     "print records as a named consumer with checkpoints",
     "Starts at the consumer's checkpoints, and where a shard has none at --from. A checkpoint is "
     "made "
     "after the records before it were printed and flushed, so after a crash some may be printed "
     "again, "
     "none is left out. Takes the fencing token of each shard: an older subscriber of the same "
     "name is "
     "refused and ends.",
     options_subscribe, run_subscribe},
    {"replay", "STREAM", "Records", "print a range of what is stored, and stop",
     "Beside whatever else reads the stream; no checkpoint is read or moved.", options_replay,
     run_replay},
    {"consumers", "STREAM", "Consumers", "who reads it, and how far behind", NULL,
     options_consumers, run_consumers},
    {"checkpoint", "show|set|reset STREAM CONSUMER", "Consumers", "show, set or forget checkpoints",
     "set moves a consumer to --offset or --from in one shard (--shard) or all open ones; a "
     "running "
     "owner is fenced. reset forgets all positions of the consumer.",
     options_checkpoint, run_checkpoint},
    {"export", "STREAM", "Export", "change records as flat NDJSON to a directory or S3",
     "Each change is in exactly one line of exactly one object, also when the exporter is killed "
     "at any "
     "moment and started again: the boundary of an object is written down before the object, its "
     "name "
     "follows from it, and the same boundary gives the same bytes. A store that is down holds the "
     "reading up; nothing is lost. Records that are no change records go to objects under "
     "--error-prefix, with the raw data and the reason. Credentials for S3: AWS_ACCESS_KEY_ID, "
     "AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN.",
     options_export, run_export},
    {"flatten", "", "Export", "change records on standard input to flat NDJSON", NULL,
     options_flatten, run_flatten},
    {"verify", "DIRECTORY", "Offline", "walk every checksum and chain of a data directory",
     "The broker must not be running on it. Exit status 4 when something is damaged.",
     options_verify, run_verify},
    {"inspect", "FILE", "Offline", "print a segment file readably", NULL, options_inspect,
     run_inspect},
    {"bench", "STREAM", "Measure", "put and read records as fast as it goes, and say how fast",
     NULL, options_bench, run_bench},
    {"stats", "[PREFIX]", "Measure", "the broker's metrics", NULL, options_stats, run_stats},
    {"orders", "", "Help", "print a made-up history of orders as change records", NULL,
     options_orders, run_orders},
    {"completion", "bash|zsh|fish", "Help", "print a completion script", NULL, options_completion,
     run_completion},
    {"man", "", "Help", "print the man page", NULL, options_man, run_man},
    {"help", "[COMMAND]", "Help", "print help", NULL, options_help, run_help},
};
const size_t command_count = sizeof commands / sizeof *commands;
