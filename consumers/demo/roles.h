/* The two consumers of the demonstration that are programs of their own: they can be killed at any
 * moment and go on where they were, with the effect of each change counted once.
 *
 * How: what a consumer made (lines, sums) and how far it has come (a position per shard) are stored
 * together; a checkpoint at the broker follows. After a crash the broker sends again what lies
 * behind the checkpoint, and the stored position tells what of that was done. */
#pragma once

/* Writes a line to DIRECTORY/notifications.txt for each order that was shipped. */
int run_notifier(const char *broker, const char *directory);
/* Keeps units and revenue per product in DIRECTORY/products.tsv. */
int run_view(const char *broker, const char *directory);
