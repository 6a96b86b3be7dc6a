/* systemd's notification protocol (sd_notify): a datagram to the socket that the manager named. */
#pragma once

/* "READY=1" and the like, to NOTIFY_SOCKET's value; NULL or empty: nobody waits. What fails is
 * left. */
void weir_notify(const char *socket_path, const char *state);
