/* A socket in place of Docker's, and behind it a process that answers, or nobody. What goes wrong fails the test. */
#ifndef ORCA_TESTS_UNIT_AGENT_FAKE_DOCKER_H
#define ORCA_TESTS_UNIT_AGENT_FAKE_DOCKER_H

#include <stdbool.h>
#include <sys/types.h>

/* Called in the other process, for each connection, with the first bytes that came over it: a request's. The connection is the answer's to close. */
typedef void fake_docker_fn(int fd, const char *asked);

struct fake_docker {
  char path[64]; /* of the socket */
  int listener;
  pid_t child; /* -1: nobody answers */
};

/* Without an answer nobody does: fake_docker_was_asked(). */
void fake_docker_open(struct fake_docker *d, fake_docker_fn *answer);
void fake_docker_close(struct fake_docker *d);

/* Somebody has connected, who is hung up on. Of one that does not answer. */
bool fake_docker_was_asked(struct fake_docker *d);

#endif
