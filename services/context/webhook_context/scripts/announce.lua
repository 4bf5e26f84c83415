-- Adds many entries to one stream.
-- KEYS: the stream.
-- ARGV: about how many entries to keep, 0 for all | the names of the fields, separated by commas |
--       then the values, entry by entry; an empty value leaves its field out.
local names = {}
for name in string.gmatch(ARGV[2], '[^,]+') do
  names[#names + 1] = name
end
for first = 3, #ARGV, #names do
  local entry = {'XADD', KEYS[1]}
  if ARGV[1] ~= '0' then
    entry = {'XADD', KEYS[1], 'MAXLEN', '~', ARGV[1]}
  end
  entry[#entry + 1] = '*'
  for i, name in ipairs(names) do
    local value = ARGV[first + i - 1]
    if value ~= '' then
      entry[#entry + 1] = name
      entry[#entry + 1] = value
    end
  end
  redis.call(unpack(entry))
end
