/* What README.md and docs/ tell people to type and to write: each `orcactl` line is parsed by the table of commands, each TOML block by the reader of
 * that file, each link and its anchor is followed. And examples/every-key has every key that is supported, and no fault. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/spec/node_config.h"
#include "common/spec/spec.h"
#include "common/spec/spec_set.h"
#include "common/spec/spec_table.h"
#include "orcactl/ctl.h"

#define TEXT_MAX (1 << 20)
#define WORDS_MAX 64

static unsigned complaints;

static void complain(const char *file, unsigned line, const char *what, const char *text) {
  printf("%s:%u: %s: %s\n", file, line, what, text);
  complaints++;
}

static char *slurp(const char *path) {
  FILE *f = fopen(path, "re");
  if (!f)
    return NULL;
  char *text = malloc(TEXT_MAX);
  assert_non_null(text);
  text[fread(text, 1, TEXT_MAX - 1, f)] = 0;
  (void)fclose(f);
  return text;
}

static void each_page(void (*page)(const char *path, char *text)) {
  static const char *const patterns[] = {"README.md", "docs/*.md", "orca-*/README.md", "orcactl/README.md", "deploy/README.md"};
  complaints = 0;
  for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
    glob_t found;
    assert_int_equal(glob(patterns[i], 0, NULL, &found), 0);
    for (size_t k = 0; k < found.gl_pathc; k++) {
      char *text = slurp(found.gl_pathv[k]);
      assert_non_null(text);
      page(found.gl_pathv[k], text);
      free(text);
    }
    globfree(&found);
  }
  assert_int_equal(complaints, 0);
}

/* ---- commands ---- */

static int parse(int argc, char **argv) {
  static struct ctl ctl;
  bool stop;
  fflush(stdout);
  int out = dup(1), err = dup(2), null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  dup2(null, 1);
  dup2(null, 2);
  close(null);
  ctl = (struct ctl){0};
  int rc = ctl_parse(&ctl, argc, argv, &stop);
  fflush(stdout);
  fflush(stderr);
  dup2(out, 1);
  dup2(err, 2);
  close(out);
  close(err);
  return rc;
}

/* Up to the end of the simple command: quotes are the shell's, what redirects or goes on with another command ends it. */
static int split(char *text, char **argv, char **rest) {
  int argc = 0;
  char *in = text, *out = text;
  *rest = NULL;
  while (argc < WORDS_MAX - 2) {
    in += strspn(in, " \t");
    if (!*in || *in == '#' || *in == '<' || *in == '>')
      break;
    if (*in == '|' || *in == ';' || *in == '&') {
      *rest = in + strspn(in, "|;& ");
      break;
    }
    argv[argc++] = out;
    char quote = 0;
    for (; *in && (quote || !strchr(" \t|;&<>", *in)); in++) {
      if (!quote && (*in == '\'' || *in == '"'))
        quote = *in;
      else if (quote == *in)
        quote = 0;
      else
        *out++ = *in;
    }
    bool more = *in == ' ' || *in == '\t';
    char stopped = *in;
    *out++ = 0;
    if (more)
      in++;
    else if (stopped == '|' || stopped == ';' || stopped == '&')
      *rest = in + strspn(in, "|;& ");
    if (!more)
      break;
  }
  argv[argc] = NULL;
  return argc;
}

static bool is_orcactl(const char *word) {
  size_t n = strlen(word);
  return n >= 7 && strcmp(word + n - 7, "orcactl") == 0 && (n == 7 || word[n - 8] == '/');
}

/* inline: a mention in a sentence may leave the arguments away. */
static void try_command(const char *file, unsigned line, const char *command, bool inside) {
  char text[2048], *rest = text, *argv[WORDS_MAX];
  static char help[] = "--help";
  snprintf(text, sizeof text, "%s", command);
  while (rest && *rest) {
    char *at = rest;
    int argc = split(at, argv, &rest);
    if (argc == 0 || !is_orcactl(argv[0]))
      continue;
    if (argc > 1 && (strcmp(argv[1], "VERB") == 0 || strcmp(argv[1], "--man") == 0 || strcmp(argv[1], "--complete") == 0))
      continue;
    if (inside) {
      for (int i = argc++; i > 1; i--)
        argv[i] = argv[i - 1];
      argv[1] = help;
      argv[argc] = NULL;
    }
    if (argc > 1 && parse(argc, argv) != CTL_OK)
      complain(file, line, "not a command of orcactl", command);
  }
}

static void try_mentions(const char *file, unsigned line, const char *text) {
  for (const char *p = strchr(text, '`'); p;) {
    const char *end = strchr(p + 1, '`');
    if (!end)
      return;
    char span[1024];
    snprintf(span, sizeof span, "%.*s", (int)(end - p - 1), p + 1);
    if (strncmp(span, "orcactl ", 8) == 0)
      try_command(file, line, span, true);
    p = strchr(end + 1, '`');
  }
}

static void commands_of(const char *file, char *text) {
  unsigned line = 0;
  bool fence = false, before_blank = true, block = false;
  for (char *at = text, *end; *at; at = end + (*end != 0)) {
    end = at + strcspn(at, "\n");
    char one[4096];
    snprintf(one, sizeof one, "%.*s", (int)(end - at), at);
    line++;
    bool indented = strncmp(one, "    ", 4) == 0;
    block = indented && (block || before_blank);
    before_blank = !*one;
    if (strncmp(one, "```", 3) == 0) {
      fence = !fence;
    } else if (fence || block) {
      char *command = one + strspn(one, " ");
      command += strncmp(command, "$ ", 2) == 0 ? 2 : 0;
      if (!fence || (command > one && command[-1] == ' ') || strncmp(command, "orcactl ", 8) == 0)
        try_command(file, line, command, false);
    } else if (!strstr(one, "*Not supported yet.*")) {
      try_mentions(file, line, one);
    }
  }
}

static void test_commands(void **state) {
  (void)state;
  each_page(commands_of);
}

/* ---- TOML ---- */

static void print_faults(const char *file, unsigned line, const struct spec_faults *faults) {
  for (size_t i = 0; i < faults->count; i++) {
    struct buf b = BUF_INIT(1 << 16);
    spec_fault_print(&faults->list[i], &b);
    complain(file, line, "in this block", buf_str(&b));
    buf_free(&b);
  }
}

static bool has_line(const char *text, const char *start) {
  size_t n = strlen(start);
  for (const char *at = text; at; at = strchr(at, '\n'), at = at ? at + 1 : NULL)
    if (strncmp(at, start, n) == 0)
      return true;
  return false;
}

static void try_toml(const char *file, unsigned line, const char *text) {
  struct spec_faults faults = {0};
  struct err err;
  if (has_line(text, "[[service]]") || has_line(text, "[[job]]")) {
    struct spec_set set = {0};
    spec_parse_services("block", text, strlen(text), "shop", &set, &faults);
    spec_set_free(&set);
  } else if (has_line(text, "[node]")) {
    struct node_config config = {0};
    if (node_config_parse("block", text, strlen(text), &config, &faults, &err) == 0)
      node_config_free(&config);
  } else {
    Model__ClusterSpec *cluster = NULL;
    spec_parse_cluster("block", text, strlen(text), &cluster, &faults);
    if (cluster)
      model__cluster_spec__free_unpacked(cluster, NULL);
  }
  print_faults(file, line, &faults);
  spec_faults_free(&faults);
}

static void blocks_of(const char *file, char *text) {
  unsigned line = 1;
  for (char *at = text; (at = strstr(at, "```toml\n"));) {
    char *begin = at + 8, *end = strstr(begin, "```");
    assert_non_null(end);
    line = 1;
    for (const char *p = text; p < at; p++)
      line += *p == '\n';
    *end = 0;
    try_toml(file, line, begin);
    *end = '`';
    at = end + 3;
  }
}

static void test_toml(void **state) {
  (void)state;
  each_page(blocks_of);
}

/* ---- links ---- */

/* As GitHub makes it of a heading's text. */
static void slug(const char *heading, char *out, size_t size) {
  size_t n = 0;
  for (const char *p = heading + strspn(heading, "# "); *p && *p != '\n' && n + 1 < size; p++)
    if (isalnum((unsigned char)*p) || *p == '-' || *p == '_')
      out[n++] = (char)tolower((unsigned char)*p);
    else if (*p == ' ')
      out[n++] = '-';
  out[n] = 0;
}

static bool has_anchor(const char *text, const char *anchor) {
  bool fence = false;
  for (const char *at = text; at; at = strchr(at, '\n'), at = at ? at + 1 : NULL) {
    char one[512];
    fence ^= strncmp(at, "```", 3) == 0;
    if (*at != '#' || fence)
      continue;
    slug(at, one, sizeof one);
    if (strcmp(one, anchor) == 0)
      return true;
  }
  return false;
}

static void links_of(const char *file, char *text) {
  const char *slash = strrchr(file, '/');
  for (char *at = text; (at = strstr(at, "](")); at++) {
    char target[512], path[1024];
    size_t len = strcspn(at + 2, ")\n");
    if (len >= sizeof target || strncmp(at + 2, "http", 4) == 0)
      continue;
    snprintf(target, sizeof target, "%.*s", (int)len, at + 2);
    char *anchor = strchr(target, '#');
    if (anchor)
      *anchor++ = 0;
    snprintf(path, sizeof path, "%.*s%s", slash ? (int)(slash - file + 1) : 0, file, *target ? target : slash ? slash + 1 : file);
    unsigned line = 1;
    for (const char *p = text; p < at; p++)
      line += *p == '\n';
    if (access(path, R_OK) < 0) {
      complain(file, line, "leads nowhere", path);
    } else if (anchor) {
      char *there = slurp(path);
      if (!there || !has_anchor(there, anchor))
        complain(file, line, "no such heading there", anchor);
      free(there);
    }
  }
}

static void test_links(void **state) {
  (void)state;
  each_page(links_of);
}

/* ---- tables ---- */

static unsigned cells_of(const char *row) {
  unsigned n = 0;
  for (const char *p = row; *p && *p != '\n'; p++)
    n += *p == '|' && (p == row || p[-1] != '\\');
  return n;
}

/* A table begins with its head and a rule, and each row has as many cells: an empty line, or a bar in the text, would end it. */
static void tables_of(const char *file, char *text) {
  unsigned line = 0, rows = 0, cells = 0;
  bool fence = false;
  for (const char *at = text; at; at = strchr(at, '\n'), at = at ? at + 1 : NULL) {
    line++;
    fence ^= strncmp(at, "```", 3) == 0;
    if (fence || *at != '|') {
      rows = 0;
      continue;
    }
    char one[80];
    snprintf(one, sizeof one, "%.*s", (int)strcspn(at, "\n"), at);
    if (rows++ == 0)
      cells = cells_of(at);
    else if (cells_of(at) != cells)
      complain(file, line, "not as many cells as the head has", one);
    if (rows == 2 && strspn(one, "|-: ") != strlen(one))
      complain(file, line, "no rule under the head of this table", one);
  }
}

static void test_tables(void **state) {
  (void)state;
  each_page(tables_of);
}

/* Each page is in the index. */
static void test_index(void **state) {
  (void)state;
  char *index = slurp("docs/README.md");
  glob_t found;
  assert_non_null(index);
  assert_int_equal(glob("docs/*.md", 0, NULL, &found), 0);
  for (size_t i = 0; i < found.gl_pathc; i++) {
    char link[256];
    snprintf(link, sizeof link, "](%s)", found.gl_pathv[i] + strlen("docs/"));
    if (!strstr(index, link) && strcmp(found.gl_pathv[i], "docs/README.md") != 0)
      fail_msg("docs/README.md does not name %s", found.gl_pathv[i]);
  }
  globfree(&found);
  free(index);
}

/* ---- the example with every key ---- */

#define SEEN_MAX 512
static const struct spec_key *seen[SEEN_MAX];
static size_t seen_count;

static bool was_seen(const struct spec_key *key) {
  for (size_t i = 0; i < seen_count; i++)
    if (seen[i] == key)
      return true;
  return false;
}

static void look(const struct toml_value *value, const struct spec_table *table) {
  if (value->type == TOML_ARRAY) {
    for (size_t i = 0; i < value->array.count; i++)
      look(value->array.items[i], table);
    return;
  }
  if (value->type != TOML_TABLE)
    return;
  for (size_t i = 0; i < value->table.count; i++) {
    const struct spec_key *key = spec_find_key(table, value->table.entries[i].key);
    if (!key)
      continue;
    if (!was_seen(key)) {
      assert_true(seen_count < SEEN_MAX);
      seen[seen_count++] = key;
    }
    if (key->table)
      look(value->table.entries[i].value, key->table);
  }
}

/* What orcactl fills in, and what only repeats another key, is left away. */
static bool is_asked_for(const struct spec_table *table, const struct spec_key *key) {
  static const char *const not [] = {"files", "volume", "hash"};
  for (size_t i = 0; i < sizeof not / sizeof *not ; i++)
    if (strcmp(key->name, not [i]) == 0)
      return false;
  return !(key->flags & (SPEC_LATER | spec_without(table)));
}

static void want(const struct spec_table *table, const char *path) {
  for (size_t i = 0; i < table->count; i++) {
    const struct spec_key *key = &table->keys[i];
    char name[256];
    if (!is_asked_for(table, key))
      continue;
    snprintf(name, sizeof name, "%s.%s", path, key->name);
    if (!was_seen(key))
      complain("examples/every-key", 0, "does not have", name);
    if (key->table)
      want(key->table, name);
  }
}

static void look_at(const char *file, const struct spec_table *table) {
  char *text = slurp(file);
  assert_non_null(text);
  struct toml_doc *doc = toml_parse(text, strlen(text), NULL, NULL);
  look(toml_root(doc), table);
  toml_free(doc);
  free(text);
}

static const char *lookup(const char *name) {
  (void)name;
  return "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
}

static void test_every_key(void **state) {
  (void)state;
  static const char dir[] = "examples/every-key";
  struct spec_set set = {0};
  struct spec_faults faults = {0};
  struct node_config node = {0};
  struct err err;
  complaints = 0;
  if (spec_read_infra(dir, &set, &faults, &err) == 0 && spec_resolve_env(&set, lookup, &faults) == 0)
    spec_check_set(&set, NULL, 0, set.cluster, &faults);
  if (node_config_read("examples/every-key/node.toml", &node, &faults, &err) == 0)
    node_config_free(&node);
  print_faults(dir, 0, &faults);
  spec_faults_free(&faults);
  spec_set_free(&set);
  look_at("examples/every-key/services/shop/service.toml", &spec_service_file);
  look_at("examples/every-key/cluster.toml", &spec_cluster_file);
  look_at("examples/every-key/node.toml", &spec_node_file);
  want(&spec_service_file, "service.toml");
  want(&spec_cluster_file, "cluster.toml");
  want(&spec_node_file, "node.toml");
  assert_int_equal(complaints, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_commands), cmocka_unit_test(test_toml),  cmocka_unit_test(test_links),
                                     cmocka_unit_test(test_tables),   cmocka_unit_test(test_index), cmocka_unit_test(test_every_key)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
