-- Stands before scripts that look into entries: their fields as a table, and whose they are.
local function as_table(fields)
  local is = {}
  for at = 1, #fields, 2 do
    is[fields[at]] = fields[at + 1]
  end
  return is
end

-- The tool of an entry about a context is that of the context.
local function tool_of(is)
  if is.tool and is.tool ~= '' then
    return is.tool
  end
  local named = string.match(is.context_id or '', '^[^:]+')
  return named or 'unknown'
end
