"""The one program that counts, run inside the store: all windows by the store's clock, several limits all or none.

Question: `ARGV[1]` holds integers in decimal with a space between (one argument is packed ten times faster than two
hundred). First a mark that comes back first, so that a mixed-up answer is noticed; then the number of groups. Then per
group: number of keys, number of waiting requests; then per key: mode (0 fixed, 1 moving, 2 sliding), quota, window µs, units
wanted ahead, units given back, their stamp, number of later windows, units wanted of each. `KEYS` in the same order.

Answer: the mark, then per key the six numbers of `lease.Answer`, and the units of each later window that was asked for.

A group is all or none. It grants one unit of *each* key to as many of its waiting requests as all keys together allow,
and on top of it what is wanted ahead, but no more than an eighth of what a window has left: near its end leases get small.
When nobody waits, only what is wanted ahead is granted.

What stands in a key, and what is promised (Q quota, W window):

- fixed (a string): when the first window begins, then the units used of it and of those that follow, `:` between. It begins
  with its first request; the others follow while units of them are granted ahead. Never more than Q in any of them.
- moving (a list: total, then `stamp:units`, oldest first): stamps are rounded *up* to W/1024, so at most 1025 entries
  are kept and each counts a little longer than it must. At any moment at most Q were granted in the last W. Units granted
  ahead live W/200, so at most Q are *used* in any window 0.5 % shorter than W; a limit that is not leased ahead is exact.
- sliding (the same list): stamps are rounded *down* to W/256, and the oldest entry fades out linearly. Smoother than
  moving, a quarter of the memory; at most Q are used in any window 1 % shorter than W (1/256 + 1/200 < 1 %).

Numbers in Lua are doubles: everything here stays below 2^53 (µs since the epoch: 2^51). They are written with %.0f,
because Lua's own conversion keeps 14 digits only.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.limit.lease import Answer, Question
from edge.limit.rules import STRATEGIES

BEAT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
"""
"""ARGV: replica id, life in ms → how many replicas live."""

TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function parse(entry)
  local stamp, units = string.match(entry, '^(%d+):(%d+)$')
  return tonumber(stamp), tonumber(units)
end

local function write(stamp, units)
  return string.format('%.0f:%.0f', stamp, units)
end

local function fixed(key, q)
  local value = redis.call('GET', key)
  local w = {used = {}, start = now, reset = 0, retry = 0}
  if value then
    local kept = {}
    for number in string.gmatch(value, '%d+') do kept[#kept + 1] = tonumber(number) end
    local past = math.max(0, math.floor((now - kept[1]) / q.window))
    for i = past + 2, #kept do w.used[#w.used + 1] = kept[i] end
    if #w.used > 0 then w.start = kept[1] + past * q.window end
  end
  w.left = math.min(w.start + q.window - now, q.window)
  w.free = q.quota - (w.used[1] or 0)
  if #w.used > 0 then w.reset, w.retry = w.left, w.left end
  return w
end

local function take_back(key, q)
  local tail = redis.call('LRANGE', key, -16, -1)
  for i = #tail, 1, -1 do
    local stamp, units = parse(tail[i])
    if stamp == q.stamp then
      local back = math.min(units, q.back)
      redis.call('LSET', key, i - 1 - #tail, write(stamp, units - back))
      return back
    end
  end
  return 0
end

local function rolling(key, q)
  local smooth = q.mode == 2
  local grain = math.ceil(q.window / (smooth and 256 or 1024))
  local stamp = smooth and math.floor(now / grain) * grain or math.ceil(now / grain) * grain
  local fade = smooth and grain or 0
  local past = now - q.window
  local w = {grain = grain, stamp = stamp, keep = q.window + fade, total = 0, reset = 0, retry = 0}
  if redis.call('EXISTS', key) == 1 then
    local total = tonumber(redis.call('LPOP', key))
    if q.back > 0 then total = total - take_back(key, q) end
    local oldest, units
    while true do
      local head = redis.call('LINDEX', key, 0)
      if not head then break end
      oldest, units = parse(head)
      if units > 0 and oldest + fade > past then break end
      redis.call('LPOP', key)
      total, oldest = total - units, nil
    end
    if oldest then
      local counted, leaves = units, oldest + fade - past
      if leaves < fade then counted = math.ceil(units * leaves / fade) end
      redis.call('LPUSH', key, string.format('%.0f', total))
      w.total, w.used = total, total - units + counted
      w.retry = leaves - math.floor((counted - 1) * fade / units)
      w.reset = parse(redis.call('LINDEX', key, -1)) + fade - past
    end
  end
  w.free = q.quota - (w.used or 0)
  return w
end

local function grant_fixed(key, q, w, units)
  w.used[1] = (w.used[1] or 0) + units
  w.later = {}
  for i = 1, q.windows do
    local used = w.used[i + 1] or 0
    w.later[i] = math.max(0, math.min(q.later, math.floor((q.quota - used) / 8)))
    w.used[i + 1] = used + w.later[i]
  end
  local value, window_ms = {string.format('%.0f', w.start)}, q.window / 1000
  for i, used in ipairs(w.used) do value[i + 1] = string.format('%.0f', used) end
  local life_ms = math.ceil(w.left / 1000) + (#w.used - 1) * window_ms
  redis.call('SET', key, table.concat(value, ':'), 'PX', string.format('%.0f', life_ms))
  return w.left, w.left, w.start + q.window
end

local function grant_rolling(key, q, w, units)
  local last = w.total > 0 and redis.call('LINDEX', key, -1) or nil
  local stamp, held
  if last then stamp, held = parse(last) end
  if stamp and stamp >= w.stamp then
    redis.call('LSET', key, -1, write(stamp, held + units))
  else
    stamp = w.stamp
    if not last then redis.call('RPUSH', key, '0') end
    redis.call('RPUSH', key, write(stamp, units))
  end
  redis.call('LSET', key, 0, string.format('%.0f', w.total + units))
  redis.call('PEXPIRE', key, string.format('%.0f', math.ceil((w.keep + w.grain) / 1000) + 1000))
  return math.floor(q.window / 200), stamp + w.keep - now, stamp
end

local given = {}
for number in string.gmatch(ARGV[1], '%d+') do given[#given + 1] = tonumber(number) end
local out = {given[1]}
local key_at, arg_at = 0, 2
for group = 1, given[2] do
  local keys, waiting = given[arg_at + 1], given[arg_at + 2]
  local count = waiting
  arg_at = arg_at + 2
  local asked, found = {}, {}
  for i = 1, keys do
    local a = arg_at + (i - 1) * 8
    local q = {mode = given[a + 1], quota = given[a + 2], window = given[a + 3], ahead = given[a + 4],
               back = given[a + 5], stamp = given[a + 6], windows = given[a + 7], later = given[a + 8]}
    local w = (q.mode == 0 and fixed or rolling)(KEYS[key_at + i], q)
    asked[i], found[i] = q, w
    count = math.min(count, math.max(w.free, 0))
  end
  for i = 1, keys do
    local key, q, w = KEYS[key_at + i], asked[i], found[i]
    if count == 0 and waiting > 0 then
      local retry = w.free < 1 and math.max(w.retry, 1) or 0
      for _, n in ipairs({0, math.max(w.free, 0), 0, w.reset, retry, 0}) do out[#out + 1] = n end
    else
      local units = math.max(count, math.min(q.ahead, math.floor(w.free / 8)))
      local life, reset, stamp = (q.mode == 0 and grant_fixed or grant_rolling)(key, q, w, units)
      for _, n in ipairs({units, w.free - units, life, reset, 0, stamp}) do out[#out + 1] = n end
    end
    for window = 1, q.windows do out[#out + 1] = w.later and w.later[window] or 0 end
  end
  key_at, arg_at = key_at + keys, arg_at + keys * 8
end
return out
"""

_NUMBERS = 6
_MAX_NUMBER = 1 << 53


def arguments(mark: int, groups: Sequence[tuple[int, Sequence[Question]]]) -> tuple[list[str], list[str]]:
    """KEYS and ARGV for (waiting requests, questions) per group."""
    keys: list[str] = []
    args = [mark, len(groups)]
    for waiting, questions in groups:
        args += (len(questions), waiting)
        for question in questions:
            limit = question.limit
            keys.append(question.key)
            args += (STRATEGIES.index(limit.strategy), limit.quota, limit.window_s * 1_000_000)
            args += (question.ahead, question.back, question.stamp, question.windows, question.later)
    return keys, [" ".join(map(str, args))]


def answers(reply: object, mark: int, groups: Sequence[tuple[int, Sequence[Question]]]) -> list[list[Answer]] | None:
    """The store's reply as one answer per question; None when it is not a reply to this question.

    The store is not trusted to be well: an answer that grants more than was asked is no answer, and none counts for longer
    than a window, whose grains make it a sixty-fourth longer at most: who lied once must not have locked one out for good.
    """
    expected = 1 + sum(_NUMBERS + question.windows for _, questions in groups for question in questions)
    if not isinstance(reply, list) or len(reply) != expected or reply[0] != mark:
        return None
    if not all(isinstance(number, int) and 0 <= number < _MAX_NUMBER for number in reply):
        return None
    found: list[list[Answer]] = []
    at = 1
    for waiting, questions in groups:
        row: list[Answer] = []
        for question in questions:
            end = at + _NUMBERS
            granted, free, life_us, reset_us, retry_us, stamp = reply[at:end]
            later = tuple(reply[end : end + question.windows])
            window_us = question.limit.window_s * 1_000_000
            life_us, retry_us = min(life_us, window_us), min(retry_us, window_us + (window_us >> 6))
            answer = Answer(granted, free, life_us, reset_us, retry_us, stamp, later)
            if answer.granted > max(waiting, question.ahead) or max(answer.later, default=0) > question.later:
                return None
            row.append(answer)
            at = end + question.windows
        found.append(row)
    return found
