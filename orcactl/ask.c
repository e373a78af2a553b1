#include "orcactl/ask.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "common/crypto/crypto.h"

#define CTRL_C 3

static int read_some(struct buf *to, bool one_line, struct err *err) {
  uint8_t piece[4096];
  int rc = 0;
  for (;;) {
    ssize_t n = read(STDIN_FILENO, piece, sizeof piece);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      rc = err_errno(err, errno, "stdin");
    if (n <= 0)
      break;
    /* As much as Linux keeps of a line: what came behind it was dropped. */
    if (one_line && n == sizeof piece) {
      rc =
          err_set(err, ERR_TOO_LARGE, "a terminal takes lines of less than %zu characters, and cuts longer ones: give it on stdin", sizeof piece - 1);
      break;
    }
    if (buf_add(to, piece, (size_t)n) < 0) {
      rc = err_set(err, ERR_TOO_LARGE, "more than %zu bytes", to->cap);
      break;
    }
    if (one_line) /* a terminal gives a line at a time */
      break;
  }
  crypto_wipe(piece, sizeof piece);
  if (to->len && to->data[to->len - 1] == '\n')
    to->data[--to->len] = 0;
  if (to->len && to->data[to->len - 1] == '\r')
    to->data[--to->len] = 0;
  return rc;
}

int ask_hidden(const char *prompt, struct buf *to, struct err *err) {
  struct termios before, hidden;
  /* Room for all of it at once: growing leaves copies behind. */
  if (buf_reserve(to, to->cap) < 0)
    return err_set(err, ERR_MEMORY, "no memory");
  if (tcgetattr(STDIN_FILENO, &before) < 0)
    return read_some(to, false, err);
  sigset_t all, old;
  hidden = before;
  hidden.c_lflag &= ~(tcflag_t)ECHO;
  /* A signal would leave the terminal without echo: Ctrl-C is a character that ends the line, and others wait. */
  hidden.c_lflag &= ~(tcflag_t)ISIG;
  hidden.c_cc[VEOL] = CTRL_C;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, &old);
  fprintf(stderr, "%s", prompt);
  fflush(stderr);
  tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden);
  int rc = read_some(to, true, err);
  tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
  sigprocmask(SIG_SETMASK, &old, NULL);
  fprintf(stderr, "\n");
  if (rc == 0 && to->len && memchr(to->data, CTRL_C, to->len))
    rc = err_set(err, ERR_CANCELLED, "nothing was done");
  return rc;
}
