#include "orcactl/plan_view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "orcactl/api.h"
#include "orcactl/table.h"
#include "orcactl/text.h"

static void print_diff(const struct ctl *ctl, const char *diff) {
  while (*diff) {
    size_t len = strcspn(diff, "\n");
    struct buf raw = BUF_INIT((size_t)16 << 20), line = BUF_INIT((size_t)16 << 20);
    buf_add(&raw, diff, len);
    text_clean_lines(buf_str(&raw), &line);
    const char *color = !ctl->color ? "" : *diff == '+' ? table_color_code(TABLE_GREEN) : *diff == '-' ? table_color_code(TABLE_RED) : "";
    printf("    %s%s%s\n", color, buf_str(&line), *color ? "\033[0m" : "");
    buf_free(&raw);
    buf_free(&line);
    diff += len + (diff[len] != 0);
  }
}

static void print_change(const struct ctl *ctl, const json_t *c) {
  static const struct {
    const char *action, *sign;
    enum table_color color;
  } kinds[] = {{"create", "+", TABLE_GREEN}, {"remove", "-", TABLE_RED}};
  const char *action = api_str(c, "action"), *sign = "~";
  enum table_color color = TABLE_YELLOW;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (strcmp(kinds[i].action, action) == 0) {
      sign = kinds[i].sign;
      color = kinds[i].color;
    }
  struct buf b = BUF_INIT((size_t)1 << 20);
  if (ctl->color)
    buf_add_str(&b, table_color_code(color));
  buf_printf(&b, "%s ", sign);
  text_clean(api_str(c, "service"), &b);
  if (ctl->color)
    buf_add_str(&b, "\033[0m");
  buf_add_str(&b, "  ");
  text_clean(action, &b);
  if (json_is_true(json_object_get(c, "job")))
    buf_printf(&b, " a job%s", json_is_true(json_object_get(c, "runs")) ? "; it runs once" : "");
  else if (json_is_integer(json_object_get(c, "revision")))
    buf_printf(&b, ", revision %lld, %lld instance%s", api_int(c, "revision"), api_int(c, "replicas"), api_int(c, "replicas") == 1 ? "" : "s");
  if (json_is_true(json_object_get(c, "stop_first")))
    buf_add_str(&b, "; the old one stops first: it binds a port or a volume of its node");
  puts(buf_str(&b));
  buf_free(&b);
  print_diff(ctl, api_str(c, "diff"));
}

static const char *sign_of(const char *action, enum table_color *ret) {
  static const struct {
    const char *action, *sign;
    enum table_color color;
  } kinds[] = {{"create", "+", TABLE_GREEN}, {"stop", "-", TABLE_RED},    {"move", ">", TABLE_YELLOW},
               {"wait", ".", TABLE_DIM},     {"blocked", "!", TABLE_RED}, {"more", ".", TABLE_DIM}};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (strcmp(kinds[i].action, action) == 0) {
      *ret = kinds[i].color;
      return kinds[i].sign;
    }
  *ret = TABLE_PLAIN;
  return "?";
}

static void step_text(const json_t *s, struct buf *b) {
  const char *action = api_str(s, "action"), *node = api_str(s, "node"), *reason = api_str(s, "reason");
  text_clean(action, b);
  if (*api_str(s, "instance"))
    buf_add_byte(b, ' ');
  text_clean(api_str(s, "instance"), b);
  if (strcmp(action, "move") == 0) {
    buf_add_str(b, " from ");
    text_clean(api_str(s, "from"), b);
    buf_add_str(b, " to ");
    text_clean(node, b);
  } else if (*node) {
    buf_add_str(b, " on ");
    text_clean(node, b);
  }
  if (strcmp(action, "create") == 0 || strcmp(action, "move") == 0) {
    buf_printf(b, ", revision %lld", api_int(s, "revision"));
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(s, "verdicts"), i, v) if (json_is_true(json_object_get(v, "chosen")) && *api_str(v, "reason")) {
      buf_add_str(b, " (");
      text_clean(api_str(v, "reason"), b);
      buf_add_byte(b, ')');
    }
  }
  if (*reason) {
    buf_add_str(b, ": ");
    text_clean(reason, b);
  }
}

/* What the nodes say to one that fits nowhere. */
static void print_refusals(const json_t *verdicts) {
  size_t i;
  json_t *v;
  json_array_foreach(verdicts, i, v) {
    struct buf b = BUF_INIT((size_t)1 << 20);
    text_clean(api_str(v, "node"), &b);
    buf_add_str(&b, ": ");
    text_clean(api_str(v, "reason"), &b);
    printf("           %s\n", buf_str(&b));
    buf_free(&b);
  }
}

static void print_steps(const struct ctl *ctl, const json_t *plan) {
  const json_t *steps = json_object_get(plan, "steps");
  size_t i;
  json_t *s;
  if (!json_is_array(steps)) {
    struct buf b = BUF_INIT((size_t)1 << 20);
    text_clean(api_str(plan, "steps_missing"), &b);
    printf("\nWhat would be created and stopped is not known: %s\n", b.len ? buf_str(&b) : "the apiserver does not tell");
    buf_free(&b);
    return;
  }
  if (!json_array_size(steps)) {
    printf("\nNo instance would be created or stopped.\n");
    return;
  }
  printf("\nIn this order:\n");
  json_array_foreach(steps, i, s) {
    enum table_color color;
    const char *sign = sign_of(api_str(s, "action"), &color);
    struct buf b = BUF_INIT((size_t)1 << 20);
    step_text(s, &b);
    printf("%5zu. %s%s %s%s\n", i + 1, ctl->color ? table_color_code(color) : "", sign, buf_str(&b),
           ctl->color && color != TABLE_PLAIN ? "\033[0m" : "");
    buf_free(&b);
    if (strcmp(api_str(s, "action"), "blocked") == 0)
      print_refusals(json_object_get(s, "verdicts"));
  }
}

void plan_warn(const json_t *plan) {
  size_t i;
  json_t *one;
  json_array_foreach(json_object_get(plan, "warnings"), i, one) {
    char *text = text_cleaned(json_is_string(one) ? json_string_value(one) : "");
    fprintf(stderr, "warning: %s\n", text ? text : "");
    free(text);
  }
}

void plan_print(struct ctl *ctl, const json_t *plan) {
  size_t i, changes = json_array_size(json_object_get(plan, "deployed")), removed = json_array_size(json_object_get(plan, "removed"));
  json_t *c;
  json_array_foreach(json_object_get(plan, "changes"), i, c) print_change(ctl, c);
  bool cluster = json_is_true(json_object_get(plan, "cluster_changed"));
  if (cluster)
    printf("~ cluster.toml\n");
  if (changes || removed)
    print_steps(ctl, plan);
  if (changes || removed || cluster)
    printf("\n%zu to deploy, %zu to remove, %zu unchanged\n", changes, removed, json_array_size(json_object_get(plan, "unchanged")));
  else
    printf("Nothing to do: %zu unchanged\n", json_array_size(json_object_get(plan, "unchanged")));
}
