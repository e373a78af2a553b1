/* What is asked for without being shown, on a terminal: whole, or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "orcactl/ask.h"

#define FAILED 99

/* In a child, with the terminal as its stdin: exits with 0 when it got exactly `len` times that letter. */
static void answer_well(int terminal, size_t len) {
  struct buf text = BUF_INIT(65538);
  struct err err;
  int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  dup2(terminal, STDIN_FILENO);
  dup2(null, STDERR_FILENO);
  if (ask_hidden("Value: ", &text, &err) < 0)
    _exit(FAILED);
  for (size_t i = 0; i < text.len; i++)
    if (text.data[i] != 'x')
      _exit(2);
  _exit(text.len == len ? 0 : 1);
}

static int typed(size_t len) {
  int master, terminal, status;
  struct termios t;
  assert_int_equal(openpty(&master, &terminal, NULL, NULL, NULL), 0);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0)
    answer_well(terminal, len);
  do
    usleep(1000);
  while (tcgetattr(terminal, &t) == 0 && (t.c_lflag & ECHO));
  char *line = malloc(len + 1);
  memset(line, 'x', len);
  line[len] = '\n';
  for (size_t at = 0; at < len + 1;) {
    ssize_t n = write(master, line + at, len + 1 - at < 1000 ? len + 1 - at : 1000);
    assert_true(n > 0);
    at += (size_t)n;
  }
  free(line);
  assert_int_equal(waitpid(child, &status, 0), child);
  close(master);
  close(terminal);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void a_line_of_a_terminal_is_whole_or_refused(void **state) {
  (void)state;
  assert_int_equal(typed(0), 0);
  assert_int_equal(typed(12), 0);
  assert_int_equal(typed(4094), 0);
  assert_int_equal(typed(4096), FAILED); /* the kernel drops what is beyond 4,095 characters, and says nothing */
  assert_int_equal(typed(60000), FAILED);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(a_line_of_a_terminal_is_whole_or_refused)};
  return cmocka_run_group_tests_name("ask", tests, NULL, NULL);
}
