/* Whose a container's secret files are: the user it runs as.
 * Threads: pure. */
#ifndef ORCA_AGENT_SECRET_USER_H
#define ORCA_AGENT_SECRET_USER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum secret_user { SECRET_USER_NUMBER, SECRET_USER_NAME, SECRET_USER_BAD };
/* Docker's Config.User: "", "1000", "1000:100", "web", "web:www". name gets the part before the colon when it is one. */
enum secret_user secret_user_parse(const char *user, uid_t *ret_uid, char name[64]);

/* The user's number in /etc/passwd, as Docker's archive (a tar of one file) of the container holds it: an image's own, so anything may be in it.
 * -1: not there, or not a plain file. */
int secret_user_in_archive(const uint8_t *tar, size_t len, const char *name, uid_t *ret_uid);

#endif
