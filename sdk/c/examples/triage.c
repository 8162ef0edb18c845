/* Triage: pulls customer messages from a records service, sorts them, writes a report, posts a summary.
 *
 * What it does, in order: reads the resource ironbound://agent/input (where the service is), fetches page
 * after page with the tool records.fetch until one is empty, writes report.md with scratch.write, and posts
 * a JSON summary with report.post. A refusal is no failure: it remembers the words, and tries again from the
 * same place when its grants change or when it is asked to. After posting it waits; an update of its input
 * asks for another post. With "rounds": N in its input it ends after N posts, with the summary as its report.
 *
 * Sorting is by keywords at the start of a word, in any case. The first class with a hit, in the order of
 * `classes`, wins. A record's severity is its class's, plus one if it sounds urgent, at most critical.
 */
#include "../ironbound.h"

#define INPUT IB("ironbound://agent/input")

enum { TAG_LIST = 1, TAG_STEP = 2 };
enum { MAX_PAGES = 10000, MAX_CUSTOMERS = 2048, TOP = 5, MAX_ALERTS = 20, MAX_WORDS = 300 };

/* ---- The rules. */

enum { CLASSES = 5, SEVERITIES = 4 };

static const struct { const char *name; int severity; const char *words; } classes[CLASSES] = {
    {"security", 2, "breach|phish|leak|password|unauthori|vulnerab|hacked|suspicious|two-factor"},
    {"outage", 2, "outage|down|unavailable|offline|timeout|error 5|crash|unreachable"},
    {"billing", 1, "invoice|refund|charge|billing|payment|credit card|subscription|price"},
    {"feature", 0, "feature|would be nice|please add|wish|suggest|roadmap|integrat"},
    {"other", 0, ""},
};
static const char *const severities[SEVERITIES] = {"low", "normal", "high", "critical"};
static const char urgent[] = "urgent|asap|immediately|all users|production|right now";

/* ---- What it knows. */

typedef enum { READ_INPUT, FETCH, WRITE, POST, WAIT } step_kind;

typedef struct { ib_text name; ib_int records, amount; } customer_kind;
typedef struct { ib_int id; int class; ib_text subject; } alert_kind;

static step_kind step = READ_INPUT;
static ib_bool asked, refused, changed, again, listed_fetch, listed_write, listed_post;
static ib_text records_url, report_url;
static ib_int rounds, posted, page = 1;
static ib_int records, amount, refusals;
static ib_int class_records[CLASSES], class_amount[CLASSES], severity_records[SEVERITIES];
static customer_kind customers[MAX_CUSTOMERS];
static int customer_count, customers_left_out;
static alert_kind alerts[MAX_ALERTS];
static int alert_count;
static char refusal[MAX_WORDS];
static ib_size refusal_size;

/* ---- Sorting. */

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

static ib_bool letter(char c) { return (lower(c) >= 'a' && lower(c) <= 'z') || (c & 0x80); }

/* One of the words, separated by bars, begins at some word's start. */
static ib_bool mentions(ib_text text, const char *words) {
    for (ib_size i = 0; i < text.size; i++) {
        if (i && letter(text.at[i - 1])) continue;
        for (const char *word = words; *word;) {
            ib_size same = 0;
            while (word[same] && word[same] != '|' && i + same < text.size && lower(text.at[i + same]) == word[same])
                same++;
            if (!word[same] || word[same] == '|') return IB_YES;
            for (word += same; *word && *word++ != '|';) {}
        }
    }
    return IB_NO;
}

static customer_kind *customer_of(ib_text name) {
    unsigned hash = 2166136261u;
    for (ib_size i = 0; i < name.size; i++) hash = (hash ^ (ib_byte)name.at[i]) * 16777619u;
    for (int tried = 0; tried < MAX_CUSTOMERS; tried++) {
        customer_kind *place = &customers[(hash + (unsigned)tried) % MAX_CUSTOMERS];
        if (place->records && ib_same(place->name, name)) return place;
        if (place->records) continue;
        if (customer_count == MAX_CUSTOMERS / 2) return 0;
        customer_count++;
        place->name = ib_keep(ib_cut(name, 80));
        return place;
    }
    return 0;
}

static ib_bool add_record(ib_json record) {
    ib_int id, cents;
    ib_text name, subject, body;
    if (!ib_json_int(ib_json_at(record, "id"), &id) || !ib_json_int(ib_json_at(record, "amount_cents"), &cents)
        || !ib_json_string(ib_json_at(record, "customer"), &name)
        || !ib_json_string(ib_json_at(record, "subject"), &subject)
        || !ib_json_string(ib_json_at(record, "body"), &body))
        return IB_NO;
    int class = 0;
    while (class < CLASSES - 1 && !mentions(subject, classes[class].words)
           && !mentions(body, classes[class].words))
        class++;
    int severity = classes[class].severity + (mentions(subject, urgent) || mentions(body, urgent));
    if (severity >= SEVERITIES) severity = SEVERITIES - 1;
    records++;
    amount += cents;
    class_records[class]++;
    class_amount[class] += cents;
    severity_records[severity]++;
    customer_kind *customer = customer_of(ib_cut(name, 80));
    if (customer) {
        customer->records++;
        customer->amount += cents;
    } else {
        customers_left_out++;
    }
    if (severity == SEVERITIES - 1 && alert_count < MAX_ALERTS)
        alerts[alert_count++] = (alert_kind){id, class, ib_keep(ib_cut(subject, 100))};
    return IB_YES;
}

/* The customers with the greatest sums, by name where sums are equal. Returns how many. */
static int top_customers(const customer_kind *top[TOP]) {
    int count = 0;
    for (int i = 0; i < MAX_CUSTOMERS; i++) {
        const customer_kind *c = &customers[i];
        if (!c->records) continue;
        int at = count;
        while (at > 0 && (c->amount > top[at - 1]->amount
                          || (c->amount == top[at - 1]->amount && ib_order(c->name, top[at - 1]->name) < 0)))
            at--;
        if (at == TOP) continue;
        if (count < TOP) count++;
        for (int j = count - 1; j > at; j--) top[j] = top[j - 1];
        top[at] = c;
    }
    return count;
}

/* ---- Telling. */

static void put_amount(ib_buffer *out, ib_int cents) {
    if (cents < 0) ib_put_char(out, '-');
    unsigned long long size = cents < 0 ? 0ull - (unsigned long long)cents : (unsigned long long)cents;
    ib_put_int(out, (ib_int)(size / 100));
    ib_put_char(out, '.');
    ib_put_char(out, (char)('0' + size / 10 % 10));
    ib_put_char(out, (char)('0' + size % 10));
}

/* Customers' own words, so that they stay words: nothing that Markdown or HTML would read. */
static void put_plain(ib_buffer *out, ib_text text) {
    for (ib_size i = 0; i < text.size; i++) {
        char c = text.at[i];
        if (ib_has(IB("\\`*_[]<>|&!#~"), (ib_text){&c, 1})) ib_put_char(out, '\\');
        ib_put_char(out, (ib_byte)c < 0x20 ? ' ' : c);
    }
}

static void put_row(ib_buffer *out, ib_text name, ib_int count, ib_int cents) {
    ib_put(out, IB("| "));
    put_plain(out, name);
    ib_put(out, IB(" | "));
    ib_put_int(out, count);
    ib_put(out, IB(" | "));
    put_amount(out, cents);
    ib_put(out, IB(" |\n"));
}

static void put_report(ib_buffer *out) {
    const customer_kind *top[TOP];
    int top_count = top_customers(top);
    ib_put(out, IB("# Triage report\n\n"));
    ib_put_int(out, records);
    ib_put(out, IB(" records, "));
    put_amount(out, amount);
    ib_put(out, IB(" in all.\n\n| Class | Records | Amount |\n|---|---:|---:|\n"));
    for (int i = 0; i < CLASSES; i++) put_row(out, ib_of(classes[i].name), class_records[i], class_amount[i]);
    ib_put(out, IB("\n| Severity | Records |\n|---|---:|\n"));
    for (int i = SEVERITIES - 1; i >= 0; i--) {
        ib_put(out, IB("| "));
        ib_put(out, ib_of(severities[i]));
        ib_put(out, IB(" | "));
        ib_put_int(out, severity_records[i]);
        ib_put(out, IB(" |\n"));
    }
    ib_put(out, IB("\n| Top customers | Records | Amount |\n|---|---:|---:|\n"));
    for (int i = 0; i < top_count; i++) put_row(out, top[i]->name, top[i]->records, top[i]->amount);
    ib_put(out, IB("\n## Critical\n\n"));
    for (int i = 0; i < alert_count; i++) {
        ib_put(out, IB("- "));
        ib_put_int(out, alerts[i].id);
        ib_put(out, IB(" ("));
        ib_put(out, ib_of(classes[alerts[i].class].name));
        ib_put(out, IB("): "));
        put_plain(out, alerts[i].subject);
        ib_put_char(out, '\n');
    }
    if (severity_records[SEVERITIES - 1] > alert_count) {
        ib_put(out, IB("- and "));
        ib_put_int(out, severity_records[SEVERITIES - 1] - alert_count);
        ib_put(out, IB(" more\n"));
    }
}

static void put_count(ib_buffer *out, ib_text name, ib_int count) {
    ib_put_member(out, name);
    ib_put_int(out, count);
}

static void put_summary(ib_buffer *out) {
    const customer_kind *top[TOP];
    int top_count = top_customers(top);
    ib_put_char(out, '{');
    put_count(out, IB("records"), records);
    put_count(out, IB("amount_cents"), amount);
    put_count(out, IB("pages"), page - 1);
    put_count(out, IB("customers_left_out"), customers_left_out);
    ib_put_member(out, IB("classes"));
    ib_put_char(out, '{');
    for (int i = 0; i < CLASSES; i++) {
        ib_put_member(out, ib_of(classes[i].name));
        ib_put_char(out, '{');
        put_count(out, IB("records"), class_records[i]);
        put_count(out, IB("amount_cents"), class_amount[i]);
        ib_put_char(out, '}');
    }
    ib_put_char(out, '}');
    ib_put_member(out, IB("severities"));
    ib_put_char(out, '{');
    for (int i = 0; i < SEVERITIES; i++) put_count(out, ib_of(severities[i]), severity_records[i]);
    ib_put_char(out, '}');
    ib_put_member(out, IB("top_customers"));
    ib_put_char(out, '[');
    for (int i = 0; i < top_count; i++) {
        ib_put(out, i ? IB(",{") : IB("{"));
        ib_put_member(out, IB("customer"));
        ib_put_string(out, top[i]->name);
        put_count(out, IB("records"), top[i]->records);
        put_count(out, IB("amount_cents"), top[i]->amount);
        ib_put_char(out, '}');
    }
    ib_put_char(out, ']');
    put_count(out, IB("posted"), posted);
    put_count(out, IB("refusals"), refusals);
    ib_put_member(out, IB("last_refusal"));
    ib_put_string(out, (ib_text){refusal, refusal_size});
    ib_put_char(out, '}');
}

static void end(void) {
    ib_buffer out = {0};
    put_summary(&out);
    ib_finish(ib_built(&out));
}

/* ---- Acting: one request is under way at most. */

static void put_request(ib_buffer *out, ib_text method, ib_text url) {
    ib_put_char(out, '{');
    ib_put_member(out, IB("method"));
    ib_put_string(out, method);
    ib_put_member(out, IB("url"));
    ib_put_string(out, url);
}

static void fetch(void) {
    ib_buffer url = {0}, arguments = {0};
    ib_put(&url, records_url);
    ib_put(&url, ib_has(records_url, IB("?")) ? IB("&page=") : IB("?page="));
    ib_put_int(&url, page);
    put_request(&arguments, IB("GET"), ib_built(&url));
    ib_put_char(&arguments, '}');
    ib_call_tool(TAG_STEP, IB("records.fetch"), ib_built(&arguments));
}

static void write_report(void) {
    ib_buffer report = {0}, arguments = {0};
    put_report(&report);
    ib_put_char(&arguments, '{');
    ib_put_member(&arguments, IB("name"));
    ib_put_string(&arguments, IB("report.md"));
    ib_put_member(&arguments, IB("text"));
    ib_put_string(&arguments, ib_built(&report));
    ib_put_char(&arguments, '}');
    ib_call_tool(TAG_STEP, IB("scratch.write"), ib_built(&arguments));
}

static void post(void) {
    ib_buffer summary = {0}, arguments = {0};
    put_summary(&summary);
    put_request(&arguments, IB("POST"), report_url);
    ib_put_member(&arguments, IB("headers"));
    ib_put(&arguments, IB("{\"content-type\":\"application/json\"}"));
    ib_put_member(&arguments, IB("body"));
    ib_put_string(&arguments, ib_built(&summary));
    ib_put_char(&arguments, '}');
    ib_call_tool(TAG_STEP, IB("report.post"), ib_built(&arguments));
}

static void advance(void) {
    if (asked || step == WAIT) return;
    asked = IB_YES;
    refused = changed = IB_NO;
    if (step == READ_INPUT) ib_read_resource(TAG_STEP, INPUT);
    if (step == FETCH) fetch();
    if (step == WRITE) write_report();
    if (step == POST) post();
}

/* Keeps the words and stays where it is. */
static void hold(ib_text words) {
    words = ib_cut(words, MAX_WORDS);
    for (refusal_size = 0; refusal_size < words.size; refusal_size++) refusal[refusal_size] = words.at[refusal_size];
    refused = IB_YES;
    refusals++;
}

static void go_on(step_kind next) {
    step = next;
    advance();
}

/* The body of an answer to http.request, if its status is 2xx. The status stands in the structured content beside
 * the body; or text is JSON with both. */
static ib_bool http_body(const ib_event *event, ib_text *body) {
    ib_json status_at = ib_json_at(event->json, "structuredContent.status"), value;
    ib_int status;
    ib_bool given = IB_YES;
    *body = event->text;
    if (!status_at.size) {
        given = ib_json_read(event->text, &value) && ib_json_string(ib_json_at(value, "body"), body);
        if (given) status_at = ib_json_at(value, "status");
    }
    if (!given || !ib_json_int(status_at, &status)) {
        hold(IB("the answer to an HTTP request has no status and body"));
    } else if (status < 200 || status > 299) {
        ib_buffer words = {0};
        ib_put(&words, IB("the service answered with status "));
        ib_put_int(&words, status);
        hold(ib_built(&words));
    } else {
        return IB_YES;
    }
    return IB_NO;
}

static void on_input(ib_text text) {
    ib_json input;
    ib_text from, to;
    if (!ib_json_read(text, &input) || !ib_json_string(ib_json_at(input, "records_url"), &from)
        || !ib_json_string(ib_json_at(input, "report_url"), &to)) {
        hold(IB("the input names no records_url and report_url"));
        return;
    }
    records_url = ib_keep(from);
    report_url = ib_keep(to);
    ib_json_int(ib_json_at(input, "rounds"), &rounds);
    go_on(FETCH);
}

static void on_page(const ib_event *event) {
    ib_text body;
    ib_json list;
    int count = 0;
    if (!http_body(event, &body)) return;
    if (!ib_json_read(body, &list)) {
        hold(IB("a page of records is not JSON"));
        return;
    }
    if (ib_json_kind(list) == '{') list = ib_json_at(list, "records");
    if (ib_json_kind(list) != '[') {
        hold(IB("a page of records is not a list"));
        return;
    }
    for (ib_walk walk = {0}; ib_json_next(list, &walk); count++)
        if (!add_record(walk.value)) refusals++;
    page++;
    go_on(count && page <= MAX_PAGES ? FETCH : WRITE);
}

static void on_posted(const ib_event *event) {
    ib_text body;
    if (!http_body(event, &body)) return;
    posted++;
    step = WAIT;
    if (rounds && posted >= rounds) end();
    else if (again) go_on(POST);
    again = IB_NO;
}

static void on_result(const ib_event *event) {
    asked = IB_NO;
    if (step == READ_INPUT) on_input(event->text);
    else if (step == FETCH) on_page(event);
    else if (step == WRITE) go_on(POST);
    else if (step == POST) on_posted(event);
}

static void on_tools(ib_json tools) {
    listed_fetch = listed_write = listed_post = IB_NO;
    for (ib_walk walk = {0}; ib_json_next(tools, &walk);) {
        ib_json name = ib_json_at(walk.value, "name");
        listed_fetch |= ib_json_is(name, IB("records.fetch"));
        listed_write |= ib_json_is(name, IB("scratch.write"));
        listed_post |= ib_json_is(name, IB("report.post"));
    }
    /* A tool that isn't listed is asked for once: the refusal's words are worth having. Then it waits. */
    ib_bool listed = step == FETCH ? listed_fetch : step == WRITE ? listed_write : step == POST ? listed_post : IB_YES;
    if (listed || !refused) advance();
}

void ib_agent(const ib_event *event) {
    switch (event->kind) {
    case IB_START:
        ib_connect("triage", "1");
        break;
    case IB_READY:
    case IB_TOOLS_CHANGED:
        changed = IB_YES;
        ib_list_tools(TAG_LIST);
        break;
    case IB_TOOLS:
        on_tools(event->json);
        break;
    case IB_UPDATED:
        if (!ib_same(event->text, INPUT)) break;
        if (step == WAIT) step = POST;
        else if (step == POST && asked) again = IB_YES;
        advance();
        break;
    case IB_RESULT:
        if (event->tag == TAG_STEP) on_result(event);
        break;
    case IB_REFUSED:
        if (event->tag == TAG_STEP) asked = IB_NO;
        hold(event->text);
        if (event->tag == IB_TAG_CONNECT) end();
        else if (event->tag == TAG_STEP && changed) ib_list_tools(TAG_LIST);   /* the grants overtook the answer */
        break;
    default:
        break;
    }
}
