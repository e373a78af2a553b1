/* Private registries, as `docker login` keeps them: $DOCKER_CONFIG/config.json or ~/.docker/config.json ("auths"; helpers are programs of
 * their own and not run).
 * Threads: reads a file each time, so that a new login is used at once. */
#ifndef ORCA_AGENT_DOCKER_AUTH_H
#define ORCA_AGENT_DOCKER_AUTH_H

#include <jansson.h>

/* "X-Registry-Auth: …" (base64url: standard base64 with a + is silently taken for anonymous), or NULL when nothing is known.
 * A secret: give it back to docker_auth_free(), never log it. */
char *docker_auth_header(const char *registry);
void docker_auth_free(char *header);
/* The same from the file's JSON (for tests). */
char *docker_auth_header_from(const json_t *config, const char *registry);

#endif
