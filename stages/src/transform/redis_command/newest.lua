local layout, kind, name = ARGV[1]:sub(1, 1), ARGV[1]:sub(2, 2), ARGV[2]

-- Returns the position behind the JSON string whose quote is at i.
local function behind_string(s, i)
  local at = i + 1
  while true do
    local k = s:find('["\\]', at)
    if not k then return nil end
    if s:byte(k) == 34 then return k + 1 end
    at = k + 2
  end
end

-- Returns the position behind the JSON value that begins at i.
local function behind_value(s, i)
  local first = s:sub(i, i)
  if first == '"' then return behind_string(s, i) end
  if first ~= '{' and first ~= '[' then return s:match('^[^%s,%]}]+()', i) end
  local depth, at = 0, i
  repeat
    local k = s:find('["%[%]{}]', at)
    if not k then return nil end
    local c = s:sub(k, k)
    if c == '"' then
      at = behind_string(s, k)
      if not at then return nil end
    else
      depth = depth + ((c == '[' or c == '{') and 1 or -1)
      at = k + 1
    end
  until depth == 0
  return at
end

-- Returns the text of a JSON string in its quotes.
local function unquoted(raw)
  if not raw:find('\\', 1, true) then return raw:sub(2, -2) end
  local ok, list = pcall(cjson.decode, '[' .. raw .. ']')
  return ok and list[1] or nil
end

-- Returns the member of a JSON object as it is written; the last where there are several.
local function member(s)
  local i, found = s:match('^%s*{%s*()'), nil
  while i and s:sub(i, i) == '"' do
    local k = behind_string(s, i)
    if not k then return nil end
    local v = s:match('^%s*:%s*()', k)
    local e = v and behind_value(s, v)
    if not e then return nil end
    if unquoted(s:sub(i, k - 1)) == name then found = s:sub(v, e - 1) end
    i = s:match('^%s*,%s*()', e)
    if not i then return s:match('^%s*}%s*$', e) and found end
  end
end

local flipped = {}
for d = 0, 9 do flipped[tostring(d)] = tostring(9 - d) end

local function of_integer(v)
  local sign, d = v:match('^([+-]?)0*(%d+)$')
  if not d or #d > 19 then return nil end
  local largest = sign == '-' and '9223372036854775808' or '9223372036854775807'
  if #d == 19 and d > largest then return nil end
  if sign ~= '-' or d == '0' then return '1' .. ('0'):rep(19 - #d) .. d end
  return '0' .. ((('0'):rep(19 - #d) .. d):gsub('%d', flipped))
end

local days_of = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

local function of_time(v)
  if v == 'infinity' then return ('9'):rep(23) end
  if v == '-infinity' then return ('0'):rep(23) end
  local is_bc = v:sub(-3) == ' BC'
  if is_bc then v = v:sub(1, -4) end
  local y, m, d, rest = v:match('^(%d%d%d%d+)%-(%d%d)%-(%d%d)(.*)$')
  if not y or #y > 7 then return nil end
  local year, month, day = tonumber(y), tonumber(m), tonumber(d)
  if is_bc then year = 1 - year elseif year == 0 then return nil end
  if year <= -5000 or year > 9994999 or month < 1 or month > 12 or day < 1 then return nil end
  local last = days_of[month]
  if month == 2 and year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0) then last = 29 end
  if day > last then return nil end
  local clock = '000000000000'
  if kind == 'd' then
    if rest ~= '' then return nil end
  else
    if kind == 'z' then
      rest = rest:match('^(.*)[Zz]$') or rest:match('^(.*)%+00:00$') or rest:match('^(.*)%+00$') or rest:match('^(.*) UTC$')
      if not rest then return nil end
    end
    local h, n, s, f = rest:match('^[Tt ](%d%d):(%d%d):(%d%d)(.*)$')
    if not h or tonumber(h) > 23 or tonumber(n) > 59 or tonumber(s) > 59 then return nil end
    if f ~= '' then
      f = f:match('^%.(%d+)$')
      if not f or f:find('[^0]', 7) then return nil end
    end
    clock = h .. n .. s .. (f .. '000000'):sub(1, 6)
  end
  return string.format('%07d', year + 5000) .. m .. d .. clock
end

-- Returns what is stored under a key as its version, nil where there is none.
local function version(key)
  if layout == 'h' then return redis.pcall('HGET', key, name) end
  local stored = redis.pcall(layout == 'd' and 'JSON.GET' or 'GET', key)
  if type(stored) ~= 'string' then return nil end
  stored = member(stored)
  if stored == 'null' then return nil end
  if stored and stored:sub(1, 1) == '"' then return unquoted(stored) or '?' end
  return stored
end

-- Returns whether a key holds a newer version than ours, or one that cannot be read.
local function is_newer(key, ours)
  local stored = version(key)
  if type(stored) ~= 'string' or stored == '' then return false end
  local theirs
  if kind == 'i' then theirs = of_integer(stored) else theirs = of_time(stored) end
  return not theirs or theirs > ours
end

local function write(key, expires, first, last)
  if layout == 'h' then
    redis.call('DEL', key)
    for i = first, last, 4000 do
      redis.call('HSET', key, unpack(ARGV, i, math.min(i + 3999, last)))
    end
    if expires ~= '0' then redis.call('PEXPIREAT', key, expires) end
  elseif layout == 'd' then
    redis.call('DEL', key)
    redis.call('JSON.SET', key, '$', ARGV[first])
    if expires ~= '0' then redis.call('PEXPIREAT', key, expires) end
  elseif expires ~= '0' then
    redis.call('SET', key, ARGV[first], 'PXAT', expires)
  else
    redis.call('SET', key, ARGV[first])
  end
end

local kept, at = 0, 3
for row = 1, #KEYS do
  local first, last = at + 3, at + 2 + tonumber(ARGV[at + 2])
  if is_newer(KEYS[row], ARGV[at]) then
    kept = kept + 1
  else
    write(KEYS[row], ARGV[at + 1], first, last)
  end
  at = last + 1
end
return -1 - kept
