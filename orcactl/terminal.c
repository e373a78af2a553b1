#include "orcactl/terminal.h"

#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct termios before;
static bool is_raw, known;

bool terminal_size(uint32_t *rows, uint32_t *cols) {
  struct winsize size;
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 && ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0)
    return false;
  *rows = size.ws_row;
  *cols = size.ws_col;
  return size.ws_row && size.ws_col;
}

void terminal_restore(void) {
  if (is_raw)
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
  is_raw = false;
}

bool terminal_raw(void) {
  if (!known && tcgetattr(STDIN_FILENO, &before) < 0)
    return false;
  if (!known)
    atexit(terminal_restore);
  known = true;
  struct termios raw = before;
  cfmakeraw(&raw);
  is_raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
  return is_raw;
}
